"""What a model folder must not hold, found before any library opens a file of it.

scan_folder    names only: code, pickles, links that lead out      (the source)
check_files    contents: JSON sizes and keys, safetensors headers  (the copies)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.weights import check_weights

CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pth"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
OTHER_WEIGHTS = frozenset({".h5", ".msgpack"})
FORBIDDEN = CODE | PICKLES | OTHER_WEIGHTS

# Keys that make transformers import a module of the model's own.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})

MAX_CONFIG = 1 << 20  # bytes; real ones have a few KiB
MAX_JSON = 256 << 20  # bytes; the largest tokenizer.json known has 33 MiB
MAX_TEMPLATE = 1 << 20  # bytes
MAX_ENTRIES = 10_000  # files and folders

# Where a configuration says more than this, it is a mistake or an attack on memory.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
HEADS = ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_kv_heads")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
WIDTHS = ("hidden_size", "n_embd", "d_model")
INNER_WIDTHS = ("intermediate_size", "moe_intermediate_size", "n_inner", "ffn_dim", "d_ff")
LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
CONFIG_LIMITS = {
    **dict.fromkeys(LAYERS, 1_024),
    **dict.fromkeys(HEADS, 4_096),
    **dict.fromkeys(EXPERTS, 1 << 14),
    **dict.fromkeys(WIDTHS, 1 << 18),
    **dict.fromkeys(INNER_WIDTHS, 1 << 21),
    **dict.fromkeys(LENGTHS, 1 << 28),
    "head_dim": 1 << 16,
    "vocab_size": 1 << 23,
}

# What is not in the files would be made up, at its full size: a model's least number of weights
# may not be several times what its files can hold. Below so many bytes it does no harm.
HARMLESS = 1 << 28
SLACK = 4


def scan_folder(folder: Path) -> None:
    """Raise UnsafeModel where the tree holds code, pickles, or links that lead out of it."""
    root = folder.resolve()
    for count, path in enumerate(_walk(folder)):
        if count > MAX_ENTRIES:
            raise UnsafeModel(f"{folder} holds more than {MAX_ENTRIES} files: not a model folder.")
        name = path.relative_to(folder)
        if path.suffix.lower() in FORBIDDEN:
            raise UnsafeModel(
                f"{name} is code or a format that can run code. Models are loaded from "
                f"safetensors only: convert the weights and remove {name}."
            )
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UnsafeModel(
                f"{name} is a link that leads out of the folder. "
                f"Copy the folder with `cp -rL` first."
            )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every entry below `folder`; links to folders are entries, never entered."""
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            yield Path(parent, name)


def check_files(folder: Path) -> None:
    """Raise UnsafeModel or UnsupportedModel where a file of a flat model folder is not sound."""
    if not (folder / "config.json").is_file():
        raise UnsupportedModel("There is no config.json: this is not a transformers model.")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            check_json(path)
        elif path.suffix == ".jinja":
            _check_size(path, MAX_TEMPLATE)
        elif path.suffix == ".safetensors":
            check_weights(path)
    config = read_json(folder / "config.json")
    _check_config(config)
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            _check_claim(part, held)


def check_json(path: Path) -> None:
    """Raise UnsafeModel where a JSON file is oversized, malformed or asks for code."""
    document = read_json(path)
    key = _find_code_key(document)
    if key is not None:
        raise UnsafeModel(
            f"{path.name} holds {key!r}, which loads Python code that comes with the model. "
            f"batchgen runs no such code: use a model of an architecture transformers has built in."
        )


def read_json(path: Path) -> Any:
    """Return the parsed file; raise UnsafeModel where it is oversized or not JSON."""
    _check_size(path, MAX_CONFIG if path.name == "config.json" else MAX_JSON)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnsafeModel(f"{path.name} is not usable JSON ({type(error).__name__}).") from error


def _check_size(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise UnsafeModel(f"{path.name} has {size:,} bytes; at most {limit:,} are accepted.")


def _find_code_key(document: Any) -> str | None:
    """Return the first key that asks for code, at any depth.

    A vocabulary maps tokens to numbers and may well hold the token `auto_map`: numbers are fine.
    """
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in CODE_KEYS and inner and (inner is True or not isinstance(inner, int)):
                    return str(key)
            pending.extend(inner for inner in value.values() if isinstance(inner, dict | list))
        elif isinstance(value, list):
            pending.extend(inner for inner in value if isinstance(inner, dict | list))
    return None


def _check_config(config: Any) -> None:
    if not isinstance(config, dict):
        raise UnsafeModel("config.json does not hold an object.")
    if config.get("quantization_config"):
        raise UnsupportedModel(
            "The weights are quantised. Import the unquantised model, or its GGUF file."
        )
    for part in (config, config.get("text_config")):
        for key, limit in CONFIG_LIMITS.items():
            value = part.get(key) if isinstance(part, dict) else None
            if value is not None and not _within(value, limit):
                raise UnsafeModel(f"config.json says {key} = {value!r}: not between 1 and {limit}.")


def _check_claim(config: dict[str, Any], held: int) -> None:
    """Raise UnsafeModel where a checked configuration needs far more weights than there are."""

    def value(keys: tuple[str, ...]) -> int:
        return max(config.get(key) or 0 for key in keys)

    # the embedding, and in each layer at least one square of the width; a byte each
    claimed = value(WIDTHS) * (value(("vocab_size",)) + value(LAYERS) * value(WIDTHS))
    if claimed > max(HARMLESS, SLACK * held):
        raise UnsafeModel(
            f"config.json describes a model of at least {claimed:,} weights, and the safetensors "
            f"files have {held:,} bytes. Fetch the files that belong together."
        )


def _within(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit

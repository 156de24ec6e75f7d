"""Finds forbidden content of a model folder before a library opens its files.

scan_folder    names only: code, pickles, links out of the folder           (the source)
check_files    contents: sizes, keys, names of files, safetensors headers   (the copies)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.trust.claims import CONFIG_LIMITS, check_claim
from batchgen.models.trust.jsons import MAX_JSON, check_size, read_json
from batchgen.models.trust.references import check_references
from batchgen.models.weights import check_weights

CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pth"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
OTHER_WEIGHTS = frozenset({".h5", ".msgpack"})
FORBIDDEN = CODE | PICKLES | OTHER_WEIGHTS

# Keys that make transformers import a Python module of the model.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})

# Limits of a vocabulary's file, in bytes; the largest known has 250 per token of its model.
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json", "*.model", "*.txt")
VOCABULARY_FLOOR = 16 << 20
PER_TOKEN = 512

MAX_TEMPLATE = 1 << 20  # bytes
MAX_ENTRIES = 10_000  # files and folders


def scan_folder(folder: Path) -> None:
    """Raise UnsafeModel if the tree holds code, pickles, or links that lead out of it."""
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
    """Yield every entry below `folder`; links to folders are not followed."""
    for parent, folders, files in os.walk(folder, followlinks=False, onerror=_refuse):
        for name in (*folders, *files):
            yield Path(parent, name)


def _refuse(error: OSError) -> None:
    raise error  # without this, an unreadable folder would seem to be empty


def check_files(folder: Path) -> None:
    """Raise UnsafeModel or UnsupportedModel if a file of a flat model folder is not valid."""
    if not (folder / "config.json").is_file():
        raise UnsupportedModel("There is no config.json: this is not a transformers model.")
    config = read_json(folder / "config.json")
    _check_config(config)
    _check_vocabulary(folder, config)
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            check_json(path)
        elif path.suffix == ".jinja":
            check_size(path, MAX_TEMPLATE)
        elif path.suffix == ".safetensors":
            check_weights(path)
    check_references(folder)
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            check_claim(part, held)


def check_json(path: Path) -> None:
    """Raise UnsafeModel if a JSON file is too large, not JSON, or would load code."""
    document = read_json(path)
    key = _find_code_key(document)
    if key is not None:
        raise UnsafeModel(
            f"{path.name} holds {key!r}, which loads Python code that comes with the model. "
            f"batchgen runs no such code: use a model of an architecture transformers has built in."
        )


def _find_code_key(document: Any) -> str | None:
    """Return the first key that would load code, at any depth.

    A key with a number is accepted, because a vocabulary may contain the token `auto_map`.
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


def _check_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    """Raise UnsafeModel if the tokenizer is too large for the model's vocabulary."""
    text = config.get("text_config")
    sizes = [part.get("vocab_size") or 0 for part in (config, text) if isinstance(part, dict)]
    limit = min(MAX_JSON, VOCABULARY_FLOOR + PER_TOKEN * max(sizes))
    for pattern in VOCABULARY_FILES:
        for path in folder.glob(pattern):
            check_size(path, limit)


def _within(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit

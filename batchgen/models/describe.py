"""What a model's own files say of it: architecture, dtype, context length, chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import UnsupportedModel
from batchgen.models.safety import read_json
from batchgen.models.weights import weights_dtype

# Where configurations of different families keep the context length, most usual first.
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
DEFAULT_LENGTH = 2048  # tokens, where neither the model nor its tokenizer tells
UNBOUNDED = 1 << 30  # tokenizers write 10**30 for "no limit"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class Description(NamedTuple):
    """What is recorded of a model besides its name and its files."""

    architecture: str
    dtype: str
    max_length: int
    chat_template: bool


def describe(folder: Path) -> Description:
    """Return what the files in a checked folder say; raise UnsupportedModel where one lacks."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UnsupportedModel("The folder holds no *.safetensors file: there are no weights.")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UnsupportedModel("The folder holds no tokenizer (tokenizer.json).")
    _check_index(folder)
    config = read_json(folder / "config.json")
    tokenizer = _read_optional(folder / "tokenizer_config.json")
    return Description(
        architecture=_architecture(config),
        dtype=_dtype(config) or weights_dtype(weights),
        max_length=_max_length(config, tokenizer),
        chat_template=bool(tokenizer.get("chat_template"))
        or (folder / "chat_template.jinja").exists(),
    )


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise UnsupportedModel("config.json names neither an architecture nor a model_type.")
    return kind


def _dtype(config: dict[str, Any]) -> str | None:
    """Return the dtype that config.json names; transformers 4 called the key torch_dtype."""
    name = config.get("dtype") or config.get("torch_dtype")
    return name.removeprefix("torch.") if isinstance(name, str) and name != "auto" else None


def _max_length(config: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    text_config = config.get("text_config")
    candidates = [
        part.get(key)
        for part in (config, text_config if isinstance(text_config, dict) else {})
        for key in LENGTH_KEYS
    ]
    candidates.append(tokenizer.get("model_max_length"))
    for value in candidates:
        if isinstance(value, int) and 0 < value < UNBOUNDED:
            return value
    return DEFAULT_LENGTH


def _check_index(folder: Path) -> None:
    """Raise UnsupportedModel where the index names a weights file that is not there."""
    index = _read_optional(folder / "model.safetensors.index.json")
    names = set(index.get("weight_map", {}).values())
    missing = sorted(str(name) for name in names if not (folder / str(name)).is_file())
    if missing:
        raise UnsupportedModel(f"Weights are incomplete: {', '.join(missing)} is missing.")


def _read_optional(path: Path) -> dict[str, Any]:
    document = read_json(path) if path.exists() else {}
    return document if isinstance(document, dict) else {}

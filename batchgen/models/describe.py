"""The description of a model from its files: architecture, dtype, context length, template."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.trust.jsons import read_json
from batchgen.models.weights import weights_dtype

# Keys of the context length in configurations of different families, most common first.
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
DEFAULT_LENGTH = 2048  # tokens, if neither the model nor its tokenizer has a length
UNBOUNDED = 1 << 30  # tokenizers write 10**30 for "no limit"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class Description(NamedTuple):
    """The fields of a model's record that are read from its files."""

    architecture: str
    dtype: str
    max_length: int
    chat_template: bool


class _Generation(msgspec.Struct):
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    pad_token_id: int | None = None


def describe(folder: Path) -> Description:
    """Return the description of a checked folder; raise UnsupportedModel if a file is missing."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UnsupportedModel("The folder holds no *.safetensors file: there are no weights.")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UnsupportedModel("The folder holds no tokenizer (tokenizer.json).")
    _check_generation(folder / "generation_config.json")
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


def _check_generation(path: Path) -> None:
    """Raise UnsafeModel if special tokens are not numbers."""
    try:
        msgspec.convert(_read_optional(path), _Generation)
    except msgspec.ValidationError as error:
        raise UnsafeModel(f"{path.name} is no generation configuration ({error}).") from error


def _read_optional(path: Path) -> dict[str, Any]:
    document = read_json(path) if path.exists() else {}
    return document if isinstance(document, dict) else {}

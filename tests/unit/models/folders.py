"""Model folders made by hand: sound in every file, with weights of a few bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 4,
    "vocab_size": 8,
    "num_hidden_layers": 1,
    "max_position_embeddings": 128,
}
TOKENIZER_CONFIG: dict[str, Any] = {"chat_template": "{{ messages }}", "model_max_length": 64}

HEADER = {
    "__metadata__": {"format": "pt"},
    "embed": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "norm": {"dtype": "BF16", "shape": [2], "data_offsets": [16, 20]},
}
DATA = bytes(20)


def safetensors(header: object = HEADER, data: bytes = DATA) -> bytes:
    """Return the bytes of a safetensors file with this header, sound or not."""
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write_json(path: Path, document: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(document), encoding="utf-8")


def model_folder(path: Path, **config: Any) -> Path:
    """Write a sound model folder; `config` replaces entries, None takes one out."""
    path.mkdir(parents=True, exist_ok=True)
    merged = CONFIG | config
    write_json(path / "config.json", {k: v for k, v in merged.items() if v is not None})
    write_json(path / "tokenizer.json", {"model": {"vocab": {"a": 0, "auto_map": 1}}})
    write_json(path / "tokenizer_config.json", TOKENIZER_CONFIG)
    (path / "model.safetensors").write_bytes(safetensors())
    return path

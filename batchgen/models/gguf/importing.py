"""Converts a GGUF file at import to a transformers folder with float32 safetensors."""

from __future__ import annotations

from pathlib import Path

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.gguf.header import read_gguf_header
from batchgen.models.trust.confined import run_confined

REMEDY = "Fetch the file again, or import the model's transformers folder (safetensors) instead."


def convert_gguf(source: Path, target: Path) -> None:
    """Write config, tokenizer and safetensors of the GGUF file `source` into `target`.

    This runs in a separate process, because readers of the file may crash or need much memory, and
    because the caller imports no torch. Raise UnsafeModel or UnsupportedModel.
    """
    read_gguf_header(source)
    try:
        run_confined("batchgen.models.gguf.convert", source.resolve(), target.resolve())
    except UnsafeModel as error:
        raise UnsafeModel(f"{source.name} cannot be converted: {error.message}") from error
    except UnsupportedModel as error:
        reason = error.message.rstrip(".")
        raise UnsupportedModel(f"{source.name} cannot be converted: {reason}. {REMEDY}") from error

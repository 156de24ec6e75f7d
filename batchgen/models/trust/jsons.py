"""JSON files of a model, read with a limit for their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchgen.errors import UnsafeModel

MAX_CONFIG = 1 << 20  # bytes; real ones have a few KiB
MAX_SETTINGS = 16 << 20  # bytes of a tokenizer's configuration and similar files
MAX_INDEX = 32 << 20  # bytes; the index of a thousand billion weights has 10 MiB
MAX_JSON = 128 << 20  # bytes; the largest tokenizer.json known has 33 MiB


def read_json(path: Path) -> Any:
    """Return the parsed file; raise UnsafeModel if it is too large or not JSON."""
    check_size(path, limit_of(path.name))
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnsafeModel(f"{path.name} is not usable JSON ({type(error).__name__}).") from error


def limit_of(name: str) -> int:
    """Return the most bytes that a JSON file of this name may have."""
    if name == "config.json":
        return MAX_CONFIG
    if ".index" in name:
        return MAX_INDEX
    return MAX_SETTINGS if name.endswith(("_config.json", "_map.json")) else MAX_JSON


def check_size(path: Path, limit: int) -> None:
    """Raise UnsafeModel if a file is larger than `limit` bytes."""
    size = path.stat().st_size
    if size > limit:
        raise UnsafeModel(f"{path.name} has {size:,} bytes; at most {limit:,} are accepted.")

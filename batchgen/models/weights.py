"""The header of a safetensors file, checked before the safetensors library opens the file.

┌ 8 bytes ┬── n bytes ──┬───────────── data ─────────────┐
│ n, LE   │ JSON header │ tensors, back to back, no gaps │
└─────────┴─────────────┴────────────────────────────────┘
"""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import UnsafeModel

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library

DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}


class TensorSpan(NamedTuple):
    """The position of one tensor, in bytes from the end of the header."""

    begin: int
    end: int
    dtype: str


def check_weights(path: Path) -> None:
    """Raise UnsafeModel if the file is not a valid safetensors file."""
    read_spans(path)


def count_weights(path: Path) -> int:
    """Return the number of elements of all tensors of a file; raise UnsafeModel."""
    widths = dict(DTYPES.values())
    return sum((span.end - span.begin) // widths[span.dtype] for span in read_spans(path))


def weights_dtype(paths: list[Path]) -> str:
    """Return the name of the dtype with the most bytes in these files."""
    sizes: Counter[str] = Counter()
    for path in paths:
        for span in read_spans(path):
            sizes[span.dtype] += span.end - span.begin
    return sizes.most_common(1)[0][0] if sizes else "float32"


def read_spans(path: Path) -> list[TensorSpan]:
    """Return the spans of a file's tensors, sorted by position; raise UnsafeModel."""
    header, data_size = _read_header(path)
    spans = sorted(_span(path, entry) for name, entry in header.items() if name != "__metadata__")
    edges = [TensorSpan(0, 0, ""), *spans, TensorSpan(data_size, data_size, "")]
    for before, after in pairwise(edges):
        if before.end != after.begin:
            raise UnsafeModel(
                f"{path.name}: tensors overlap, leave gaps or run past the end of the file "
                f"(byte {before.end}). It is damaged or was cut short: fetch it again."
            )
    return spans


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header and the number of data bytes after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise UnsafeModel(f"{path.name} is not a safetensors file, or was cut short.")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnsafeModel(f"{path.name} has a header that is not JSON.") from error
    if not isinstance(header, dict):
        raise UnsafeModel(f"{path.name} has a header that is not an object.")
    return header, size - 8 - length


def _span(path: Path, entry: Any) -> TensorSpan:
    try:
        dtype, width = DTYPES[entry["dtype"]]
        shape = [_count(value) for value in entry["shape"]]
        begin, end = (_count(value) for value in entry["data_offsets"])
        if end - begin != math.prod(shape) * width:
            raise ValueError("size and shape disagree")
    except (KeyError, TypeError, ValueError) as error:
        raise UnsafeModel(f"{path.name} describes an invalid tensor ({error}).") from error
    return TensorSpan(begin, end, dtype)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value

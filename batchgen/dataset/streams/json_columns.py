"""JSON texts of whole Arrow columns, computed without a Python object for each value.

Every function returns a column of JSON texts that is as long as its argument. The texts are those
that orjson writes, with all characters escaped that may end a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

NULL: Final = "null"

#: The escapes that answers often need, the backslash first.
_USUAL: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: Other control characters, which are rare.
_CONTROL: Final = {
    char: json.dumps(char)[1:-1] for char in map(chr, range(32)) if char not in _USUAL
}
#: Three characters that end a line for `str.splitlines`; see `batchgen.dataset.json_lines`.
_LINE_ENDS: Final = {end: rf"\u{ord(end):04x}" for end in "\u0085\u2028\u2029"}


def escaped(column: pa.Array) -> pa.Array:
    """Return the texts of a column as they stand between the quotes of JSON strings."""
    column = _replaced(column, _USUAL)
    if _has_control(column):
        column = _replaced(column, _CONTROL)
    return line_ends_escaped(column)


def line_ends_escaped(column: pa.Array) -> pa.Array:
    """Return JSON texts with all characters escaped that may end a line."""
    return _replaced(column, _LINE_ENDS)


def quoted(column: pa.Array) -> pa.Array:
    """Return the texts of a column as JSON strings."""
    return joined('"', escaped(column), '"')


def numbers(column: pa.Array) -> pa.Array:
    """Return the integers of a column as JSON numbers."""
    return column.cast(pa.string()).fill_null(NULL)


def floats(column: pa.Array) -> pa.Array:
    """Return the doubles of a column as orjson writes them; NaN is null."""
    if not len(column):
        return pa.array([], pa.string())
    values = np.ascontiguousarray(column.to_numpy(zero_copy_only=False), np.float64)
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    return pc.split_pattern(pa.array([text]), ",").flatten()


def moments(column: pa.Array) -> pa.Array:
    """Return times in UTC as JSON strings of RFC 3339, to the microsecond."""
    texts = column.cast(pa.timestamp("us")).cast(pa.string())
    return joined('"', pc.replace_substring(texts, " ", "T"), '+00:00"')


def arrays(column: pa.ListArray, items: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the lists of a column as JSON arrays; `items` writes all items of all lists."""
    lists = pa.ListArray.from_arrays(pa.array(_offsets(column)), items(column.flatten()))
    texts = joined("[", pc.binary_join(lists, ","), "]")
    return pc.if_else(column.is_valid(), texts, NULL)


def firsts(column: pa.ListArray, items: pa.Array) -> pa.Array:
    """Return the item of each row's first list element, null for an empty list.

    `items` are those of all lists, as in `column.flatten()`.
    """
    offsets = _offsets(column)
    return items.take(pa.array(offsets[:-1], mask=offsets[:-1] == offsets[1:]))


def joined(*parts: pa.Array | str) -> pa.Array:
    """Return the texts joined row by row; the JSON text null where one of them is null."""
    return pc.binary_join_element_wise(*parts, "").fill_null(NULL)


def _offsets(column: pa.ListArray) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Return where each list begins in `column.flatten()`, and where the last one ends."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])


def _replaced(column: pa.Array, escapes: dict[str, str]) -> pa.Array:
    data = text_bytes(column)
    for char, escape in escapes.items():
        if char.encode() in data:
            column = pc.replace_substring(column, char, escape)
    return column


def _has_control(column: pa.Array) -> bool:
    buffer = _buffer(column)
    if buffer is None or not buffer.size:
        return False
    return int(np.frombuffer(buffer, np.uint8).min()) < ord(" ")


def text_bytes(column: pa.Array) -> bytes:
    """Return the texts of a column, one after the other."""
    buffer = _buffer(column)
    return b"" if buffer is None else bytes(buffer.to_pybytes())


def _buffer(column: pa.Array) -> pa.Buffer | None:
    """Return the bytes of all texts of a column, one after the other, without a copy."""
    offsets, data = column.buffers()[1:]
    if data is None or not len(column):
        return None
    ends = np.frombuffer(offsets, np.int32)
    start, end = int(ends[column.offset]), int(ends[column.offset + len(column)])
    return data.slice(start, end - start)

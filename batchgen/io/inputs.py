"""Stored inputs: the bytes as they came, and rows read from them by offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.errors import Corrupt
from batchgen.io.lines import LineParser
from batchgen.io.records import RecordFile
from batchgen.io.rows import BadRow, InputRow
from batchgen.io.storage import Storage


def input_key(sha256: str) -> str:
    """Return the storage key of an input's bytes."""
    return f"inputs/{sha256}"


def index_key(sha256: str) -> str:
    """Return the storage key of an input's offsets: n_rows + 1 little-endian uint64."""
    return f"{input_key(sha256)}.index"


def read_rows(storage: Storage, sha256: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (row, bytes) of the positions [start, end); a position is a row.

    Line feeds are removed, and a record longer than a line may be comes cut, yet still too long.
    Raises Corrupt where bytes are missing.
    """
    try:
        with storage.open(input_key(sha256)) as data, storage.open(index_key(sha256)) as index:
            yield from RecordFile(data, index).read(start, end)
    except FileNotFoundError:
        raise Corrupt(
            f"The stored input {sha256[:12]} or its index is missing. Run `batchgen fsck`."
        ) from None


def parse_rows(
    storage: Storage,
    sha256: str,
    start: int,
    end: int,
    *,
    defaults: Mapping[str, Any],
    model: str | None,
) -> Iterator[InputRow | BadRow]:
    """Yield the rows at the positions [start, end), parsed; raise Corrupt."""
    parser = LineParser(defaults, model)
    for row, raw in read_rows(storage, sha256, start, end):
        yield parser.parse(raw, row)

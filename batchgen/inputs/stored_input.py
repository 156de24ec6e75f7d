"""Stored inputs: the unchanged bytes, and rows that are read from them by offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import Corrupt
from batchgen.inputs.record_file import RecordFile
from batchgen.inputs.seals import Seal, changed, sealed
from batchgen.requests.lines import LineParser
from batchgen.storage.storage import Storage

READ_TOGETHER: Final = 32  # rows read between two checks that the file has not changed


def input_key(sha256: str) -> str:
    """Return the storage key of an input's bytes."""
    return f"inputs/{sha256}"


def index_key(sha256: str) -> str:
    """Return the storage key of an input's offsets: n_rows + 1 little-endian uint64."""
    return f"{input_key(sha256)}.index"


def read_rows(storage: Storage, sha256: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (row, bytes) of the positions [start, end); a position is a row.

    Line feeds are removed. A record that is too long for a line is cut, but stays too long.
    Raises Corrupt if bytes are missing or are not those that were submitted.
    """
    try:
        with storage.open(input_key(sha256)) as data, storage.open(index_key(sha256)) as index:
            seal = sealed(data, sha256)
            records = RecordFile(data, index).read(start, end)
            while batch := list(islice(records, READ_TOGETHER)):
                if Seal.of(data) != seal:
                    raise changed(sha256)
                yield from batch
    except FileNotFoundError:
        raise _missing(sha256) from None


def first_line(storage: Storage, sha256: str) -> bytes:
    """Return the first record, without the check that the input is unchanged; raise Corrupt."""
    try:
        with storage.open(input_key(sha256)) as data, storage.open(index_key(sha256)) as index:
            [(_, raw)] = RecordFile(data, index).read(0, 1)
            return raw
    except FileNotFoundError:
        raise _missing(sha256) from None


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


def _missing(sha256: str) -> Corrupt:
    return Corrupt(f"The stored input {sha256[:12]} or its index is missing. Run `batchgen fsck`.")

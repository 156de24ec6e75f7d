from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import Corrupt, InvalidInput, MissingInput
from batchgen.inputs.record_file import (
    CHUNK_BYTES,
    MAX_RECORD_BYTES,
    OFFSET,
    RecordFile,
    RecordReader,
)
from batchgen.requests.values.strict_json import MAX_LINE_BYTES

BOM = b"\xef\xbb\xbf"
LINES = st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=8)


class Dribble(io.BytesIO):
    """A stream that gives a few bytes at a time, as a slow pipe may."""

    step = 1

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.step)


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def nothing(head: bytes) -> None:
    """Recognise no format: every file is lines."""


def split(data: bytes, stream: Callable[[bytes], io.BytesIO] = io.BytesIO) -> list[bytes]:
    """Split `data`, and check what holds for every input: the copy, and the way back by offset."""
    index, copied = io.BytesIO(), io.BytesIO()
    reader = RecordReader(stream(data), index=index, copy=copied.write, recognise=nothing)
    records = [record for batch in reader.batches() for record in batch]
    assert copied.getvalue() == data
    assert reader.bytes == len(data)
    offsets = np.frombuffer(index.getvalue(), OFFSET).tolist()
    assert len(offsets) == len(records) + 1
    assert offsets[0] == (len(BOM) if data.startswith(BOM) else 0)
    assert offsets[-1] == max(len(data), offsets[0])
    again = RecordFile(io.BytesIO(b"??" + data), index, base=2)
    cut = [record[: MAX_LINE_BYTES + 1] for record in records]
    assert [raw for _, raw in again.read(0, len(records))] == cut
    return records


@given(LINES, st.booleans(), st.booleans(), st.integers(1, 5))
def test_records_are_what_stands_between_line_feeds(
    lines: list[bytes], final: bool, bom: bool, step: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if final and lines else b"")
    if data.startswith(BOM):
        return
    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    dribble = type("Slow", (Dribble,), {"step": step})
    data = BOM + data if bom else data
    assert split(data) == wanted
    assert split(data, dribble) == wanted


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (BOM, []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"a", [b"a"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (BOM + b"a\n" + BOM + b"b", [b"a", BOM + b"b"]),
        ("a\u2028b\x0b\x0c\x85".encode() + b"\nc", ["a\u2028b\x0b\x0c\x85".encode(), b"c"]),
    ],
)
def test_only_a_line_feed_ends_a_record(data: bytes, records: list[bytes]) -> None:
    assert split(data) == records


@pytest.mark.parametrize("size", [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_records_across_chunks(size: int) -> None:
    assert split(b"x" * size + b"\nyy\n" + b"z" * size) == [b"x" * size, b"yy", b"z" * size]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext"])
def test_a_long_record_comes_cut_and_too_long(end: bytes) -> None:
    records = split(b"first\n" + b"x" * (5 * MAX_LINE_BYTES) + end)
    assert MAX_LINE_BYTES < len(records[1]) <= MAX_LINE_BYTES + 1 + CHUNK_BYTES
    assert records[2:] == ([b"next"] if end == b"\nnext" else [])


def test_a_record_of_the_limit_is_whole() -> None:
    assert split(b"x" * MAX_LINE_BYTES + b"\ny") == [b"x" * MAX_LINE_BYTES, b"y"]


@pytest.mark.parametrize("stream", [io.BytesIO, Dribble])
def test_another_format_is_told_by_the_first_bytes_however_they_come(
    stream: Callable[[bytes], io.BytesIO],
) -> None:
    index = io.BytesIO()
    with pytest.raises(InvalidInput, match=r"not JSON Lines but a JSON array: write its items"):
        next(RecordReader(stream(b'[\n{"prompt": "x"}\n]\n'), index=index).batches())


class Endless(io.RawIOBase):
    """A source that never ends and knows how much of it was read."""

    n_read = 0

    def read(self, size: int = -1, /) -> bytes:
        self.n_read += size
        return b"x" * size


@pytest.mark.parametrize("longest", [MAX_LINE_BYTES, MAX_RECORD_BYTES])
def test_a_record_without_end_ends_the_reading(longest: int) -> None:
    source, copied, index = Endless(), io.BytesIO(), io.BytesIO()
    reader = RecordReader(
        cast("BinaryIO", source),
        index=index,
        copy=copied.write,
        longest=longest,
        recognise=nothing,
    )
    first, *more = [record for batch in reader.batches() for record in batch]
    assert reader.ended_early
    assert (first, more) == (b"x" * (MAX_LINE_BYTES + 1), [])
    assert longest < source.n_read == len(copied.getvalue()) <= longest + 2 * CHUNK_BYTES


def test_what_follows_a_record_that_is_too_long_is_not_read() -> None:
    index = io.BytesIO()
    data = io.BytesIO(b"a\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nb\n")
    reader = RecordReader(data, index=index, longest=MAX_LINE_BYTES, recognise=nothing)
    assert [len(record) for batch in reader.batches() for record in batch] == [
        1,
        MAX_LINE_BYTES + 1,
    ]
    assert reader.ended_early
    again = RecordFile(data, index)
    assert [len(raw) for _, raw in again.read(0, 2)] == [1, MAX_LINE_BYTES + 1]


def test_a_source_that_fails_is_named() -> None:
    with pytest.raises(MissingInput, match="Input/output error"):
        next(RecordReader(Broken(), index=io.BytesIO()).batches())


class Measured(io.BytesIO):
    """Data that knows the longest piece ever read of it."""

    longest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.longest = max(self.longest, len(piece))
        return piece


def test_of_a_long_record_little_more_than_the_limit_is_read_again() -> None:
    data = Measured(b"x" * (3 * MAX_LINE_BYTES) + b"\n")
    index = io.BytesIO(np.array([0, 3 * MAX_LINE_BYTES + 1], OFFSET).tobytes())
    [(_, raw)] = RecordFile(data, index).read(0, 1)
    assert len(raw) == MAX_LINE_BYTES + 1
    assert data.longest <= MAX_LINE_BYTES + 2


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 3],  # too few for two rows
        [0, 3, 99],  # beyond the data
        [0, 3, 2],  # backwards
        [0, 3, 3],  # no record is empty: even a blank line has its line feed
    ],
)
def test_offsets_that_lead_astray_are_corrupt(offsets: list[int]) -> None:
    index = io.BytesIO(np.array(offsets, OFFSET).tobytes())
    with pytest.raises(Corrupt):
        list(RecordFile(io.BytesIO(b"aa\nbb\n"), index).read(0, 2))

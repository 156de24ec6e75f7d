"""Records of an input, the bytes between line feeds, and the offset of each.

    bytes     BOM {…}\\n {…}\\r\\n \\n {…}
                  ▲     ▲       ▲  ▲    ▲
    offsets       0     1       2  3    end        n + 1 numbers, little-endian uint64

A record ends at a line feed; the last one may have none. Offsets count from the first byte of the
input. A byte order mark belongs to no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import numpy as np

from batchgen.errors import Corrupt, InvalidInput, MissingInput
from batchgen.inputs.formats import HEAD_BYTES, Format, recognise
from batchgen.requests.values.strict_json import MAX_LINE_BYTES

CHUNK_BYTES: Final = 1 << 18
MAX_RECORD_BYTES: Final = 64 << 20  # after a longer record the rest is not read
OFFSET: Final = np.dtype("<u8")
_CUT: Final = MAX_LINE_BYTES + 1  # bytes kept of a longer record: enough to see that it is too long
_BOM: Final = b"\xef\xbb\xbf"
_LINE_FEED: Final = 0x0A


class RecordReader:
    """Splits a stream into records, in one pass; memory holds one chunk and one record.

    It also gives all bytes to `copy`, and writes the offset of every record to `index`, if there
    are such. After a record of more than `longest` bytes it stops reading.
    """

    def __init__(
        self,
        source: BinaryIO,
        *,
        index: BinaryIO | None = None,
        copy: Callable[[bytes], object] | None = None,
        longest: int = MAX_RECORD_BYTES,
        recognise: Callable[[bytes], Format | None] = recognise,
    ) -> None:
        self._source = source
        self._index = index
        self._copy = copy
        self._longest = longest
        self._recognise = recognise
        self.bytes = 0  # read so far
        self.ended_early = False  # after a record that is too long

    def batches(self) -> Iterator[list[bytes]]:
        """Yield the records of one chunk after another, without their line feeds.

        A record that is too long for a line is cut, but stays too long. Raises InvalidInput if the
        first bytes show another format, MissingInput if the source cannot be read.
        """
        carry = b""
        held = 0  # bytes of the record that has not ended yet
        for chunk in self._chunks():
            records = chunk.split(b"\n")
            held += len(records[0])
            records[0] = carry + records[0]
            if held > self._longest:
                self.ended_early = True
                if len(records) == 1:
                    self._write_offsets(np.array([self.bytes]))
                yield [records[0][:_CUT]]
                return
            if len(records) > 1:
                held = len(records[-1])
            carry = records.pop()[:_CUT]
            yield records
        if carry:
            self._write_offsets(np.array([self.bytes]))
            yield [carry]

    def _chunks(self) -> Iterator[bytes]:
        chunk = self._head()
        start = len(_BOM) if chunk.startswith(_BOM) else 0
        self._write_offsets(np.array([start]))
        while chunk:
            if self._copy is not None:
                self._copy(chunk)
            line_feeds = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _LINE_FEED)
            self._write_offsets(line_feeds + (self.bytes + 1))
            self.bytes += len(chunk)
            yield chunk[start:]
            start = 0
            chunk = self._read()

    def _head(self) -> bytes:
        """Return the first chunk, long enough to recognise the format."""
        head = self._read()
        while len(head) < HEAD_BYTES and (more := self._read()):
            head += more
        if (found := self._recognise(head)) is not None:
            raise InvalidInput(f"The input is not JSON Lines but {found.name}: {found.remedy}.")
        return head

    def _read(self) -> bytes:
        try:
            return self._source.read(CHUNK_BYTES)
        except OSError as error:
            raise MissingInput(f"The input cannot be read: {error.strerror or error}.") from error

    def _write_offsets(self, offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        if self._index is not None:
            self._index.write(offsets.astype(OFFSET).tobytes())


class RecordFile:
    """Reads single records by offset. The input begins at byte `base` of `data`."""

    def __init__(self, data: BinaryIO, index: BinaryIO, *, base: int = 0) -> None:
        self._data = data
        self._index = index
        self._base = base

    def read(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield (record, bytes) of [start, end), without line feeds; long records are cut.

        Raises Corrupt if an offset is outside the data.
        """
        offsets = self._offsets(start, end)
        for i in range(end - start):
            yield start + i, self._record(int(offsets[i]), int(offsets[i + 1]), start + i)

    def _offsets(self, start: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        self._index.seek(start * OFFSET.itemsize)
        stored = self._index.read((end - start + 1) * OFFSET.itemsize)
        if len(stored) != (end - start + 1) * OFFSET.itemsize:
            raise Corrupt(f"The index of the input ends before row {end}. Run `batchgen fsck`.")
        return np.frombuffer(stored, OFFSET)

    def _record(self, begin: int, end: int, row: int) -> bytes:
        wanted = min(end - begin, _CUT + 1)
        if wanted > 0:
            self._data.seek(self._base + begin)
            raw = self._data.read(wanted)
            if len(raw) == wanted:
                return raw.removesuffix(b"\n")[:_CUT]
        raise Corrupt(f"Row {row} of the stored input cannot be read. Run `batchgen fsck`.")

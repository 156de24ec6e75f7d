"""Lines that are made while they are read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class LineStream(io.RawIOBase):
    """A file, read once from front to back, of the lines that an iterator yields.

    What the iterator raises, `read` raises.
    """

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        # of the line that did not fit into the last buffer
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the beginning of a buffer and return how many bytes, 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._lines, b""))
        with memoryview(buffer).cast("B") as room:
            size = min(len(room), len(self._rest))
            room[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

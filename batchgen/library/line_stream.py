"""A file whose lines come from an iterator."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class LineStream(io.RawIOBase):
    """A file of the lines that an iterator yields. It can be read once.

    `read` raises the exceptions of the iterator.
    """

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        # the rest of a line that did not fit into the last buffer
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Write bytes to the start of a buffer and return how many, 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._lines, b""))
        with memoryview(buffer).cast("B") as room:
            size = min(len(room), len(self._rest))
            room[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

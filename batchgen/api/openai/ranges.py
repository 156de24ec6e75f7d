"""Ranges of bytes of lines that are produced while they are sent: RFC 9110, one range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from batchgen.api.errors import ApiError

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """The bytes from `start` to before `end`, of `size`."""

    start: int
    end: int
    size: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers that describe it."""
        return {
            "content-range": f"bytes {self.start}-{self.end - 1}/{self.size}",
            "content-length": str(self.end - self.start),
        }

    def of(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the range among the pieces of the whole."""
        position = 0
        for piece in pieces:
            first, last = max(self.start - position, 0), min(self.end - position, len(piece))
            if first < last:
                yield piece[first:last]
            position += len(piece)
            if position >= self.end:
                return


def read_range(header: str | None, size: int) -> ByteRange | None:
    """Return the range that a header Range asks for; None if it is to be ignored.

    Raises ApiError 416 if the range is outside. Of several ranges, as of any other form, none is
    served: the answer is the whole, which is allowed.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= size or start >= end:
        raise ApiError(
            416,
            f"The file has {size:,} bytes.",
            code="range_not_satisfiable",
            headers={"content-range": f"bytes */{size}"},
        )
    return ByteRange(start=start, end=end, size=size)

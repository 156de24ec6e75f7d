"""Find ids that are given twice, exactly, in memory that does not grow with the rows.

A 64-bit hash of each id is kept, in a file if there are more than some thousands. If rows have the
same hash, their ids are read again and compared, so a collision of hashes is never reported.

    rows       0 … 65,535 │ 65,536 … │ … the last      written one piece at a time
    compared   all hashes below 2⁶⁴/n, then the next such share, …: n passes, one piece at a time
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

AT_ONCE = 65_536  # hashes in memory: about 0.5 MB, three times as much while they are sorted

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row that repeats the id of the earlier row `first`; both numbers are 0-based."""

    row: int
    first: int
    custom_id: str


class IdHashes:
    """Holds the hash of every row's id, in row order: the last in memory, the rest in `file`."""

    def __init__(
        self, file: BinaryIO, hash_id: Callable[[str], int] = hash, *, at_once: int = AT_ONCE
    ) -> None:
        self._file = file
        self._hash_id = hash_id
        self._at_once = at_once
        self._written = 0
        # the hashes of the last rows
        self._recent = array("q")

    def add(self, custom_id: str) -> None:
        """Append the id of the next row."""
        self._recent.append(self._hash_id(custom_id))
        if len(self._recent) == self._at_once:
            self._file.write(self._recent)
            self._written += len(self._recent)
            del self._recent[:]

    def duplicates(self, id_of: Callable[[int], str]) -> Iterator[Duplicate]:
        """Yield every row that repeats an id, in any order. `id_of` reads a row's id again."""
        for hashes, rows in self._suspects():
            first: dict[str, int] = {}
            group: int | None = None
            for hashed, row in zip(hashes.tolist(), rows.tolist(), strict=True):
                if hashed != group:
                    group, first = hashed, {}
                custom_id = id_of(row)
                if first.setdefault(custom_id, row) != row:
                    yield Duplicate(row, first[custom_id], custom_id)

    def _suspects(self) -> Iterator[tuple[Hashes, Rows]]:
        """Yield (hashes, rows) of the rows whose hash is not unique, sorted by hash, then row."""
        shares = -(-(self._written + len(self._recent)) // self._at_once)
        for share in range(shares):
            hashes, rows = self._between((share << 64) // shares, ((share + 1) << 64) // shares)
            order = np.argsort(hashes, kind="stable")
            ordered = hashes[order]
            same = ordered[1:] == ordered[:-1]
            if same.any():
                shared = np.append(same, False) | np.insert(same, 0, False)
                yield ordered[shared], rows[order][shared]

    def _between(self, low: int, high: int) -> tuple[Hashes, Rows]:
        """Return the hashes in [low, high) and their rows, in row order."""
        hashes, rows = [], []
        for first, piece in self._pieces():
            inside = np.flatnonzero((piece >= np.uint64(low)) & (piece <= np.uint64(high - 1)))
            hashes.append(piece[inside])
            rows.append(inside + first)
        return np.concatenate(hashes), np.concatenate(rows)

    def _pieces(self) -> Iterator[tuple[int, Hashes]]:
        """Yield (row of the first hash, hashes), in row order."""
        self._file.seek(0)
        for first in range(0, self._written, self._at_once):
            yield first, np.frombuffer(self._file.read(8 * self._at_once), np.uint64)
        yield self._written, np.frombuffer(self._recent, np.uint64)

"""Ids given twice, found exactly in eight bytes a row.

Only a 64-bit hash of each id stays in memory. Rows whose hashes are equal are suspects; their ids
are read again and compared, so that a collision of hashes never accuses anyone.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

_BUCKETS = 16  # turns in which all hashes are looked at: no second array of all is ever made
_WIDTH = (1 << 64) // _BUCKETS

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One row whose id an earlier row has; `row` and `first` are 0-based."""

    row: int
    first: int
    custom_id: str


class IdHashes:
    """The hash of every row's id, in row order."""

    def __init__(self, hash_id: Callable[[str], int] = hash) -> None:
        self._hash_id = hash_id
        self._hashes = array("q")

    def add(self, custom_id: str) -> None:
        """Append the id of the next row."""
        self._hashes.append(self._hash_id(custom_id))

    def duplicates(self, id_of: Callable[[int], str]) -> Iterator[Duplicate]:
        """Yield every row that repeats an id, in no order; `id_of` reads a row's id again."""
        for hashes, rows in self._suspects():
            first: dict[str, int] = {}
            group: int | None = None
            for hashed, row in zip(hashes.tolist(), rows.tolist(), strict=True):
                if hashed != group:
                    group, first = hashed, {}
                custom_id = id_of(row)
                if first.setdefault(custom_id, row) != row:
                    yield Duplicate(row, first[custom_id], custom_id)

    def _suspects(self) -> Iterator[tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], Rows]]:
        """Yield (hashes, rows) of the rows whose hash is not unique, sorted by hash, then row."""
        hashes = np.asarray(self._hashes).view(np.uint64)
        for bucket in range(_BUCKETS):
            low, high = np.uint64(bucket * _WIDTH), np.uint64((bucket + 1) * _WIDTH - 1)
            rows = np.flatnonzero((hashes >= low) & (hashes <= high))
            if not rows.size:
                continue
            order = np.argsort(hashes[rows], kind="stable")
            ordered = hashes[rows][order]
            same = ordered[1:] == ordered[:-1]
            shared = np.append(same, False) | np.insert(same, 0, False)
            yield ordered[shared], rows[order][shared]

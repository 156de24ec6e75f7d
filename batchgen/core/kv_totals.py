"""The use of the KV pool by rows, added up over a shard, a part, a job or a dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import msgspec

from batchgen.core.rows import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class KVTotals:
    """Sums and means over some rows; `a + b` covers the rows of both. It never makes a row fail.

    Each row counts once, with the computation that gave its result.
    """

    # Answered rows that the two means are taken over; 0 if nothing was measured.
    rows: int = 0
    # Preemptions of rows, and blocks copied on write; failed rows count too.
    preemptions: int = 0
    copies: int = 0
    # Filled slots over slots of the blocks in use, and 1 - blocks in use over blocks that would
    # be without sharing, both while the rows ran; 0 to 1.
    utilisation: float = 0.0
    sharing_saving: float = 0.0

    @classmethod
    def of(cls, generation: Generation) -> Self:
        """Return the totals of one row."""
        kv = generation.kv
        if kv is None:
            return cls()
        answered = generation.error is None
        return cls(
            rows=int(answered),
            preemptions=kv.preemptions,
            copies=kv.copies,
            utilisation=_share(kv.utilisation) if answered else 0.0,
            sharing_saving=_share(kv.sharing_saving) if answered else 0.0,
        )

    @classmethod
    def decode(cls, text: str | None) -> Self:
        """Return the totals that `encode` wrote; if `text` is None or unreadable, `UNMEASURED`."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except msgspec.DecodeError:
            return cls()

    def encode(self) -> str:
        """Return the totals as JSON text."""
        return msgspec.json.encode(self).decode()

    def __add__(self, other: KVTotals) -> KVTotals:
        return KVTotals(
            rows=self.rows + other.rows,
            preemptions=self.preemptions + other.preemptions,
            copies=self.copies + other.copies,
            utilisation=_mean(self.utilisation, self.rows, other.utilisation, other.rows),
            sharing_saving=_mean(self.sharing_saving, self.rows, other.sharing_saving, other.rows),
        )


#: For rows that were not measured.
UNMEASURED = KVTotals()


def _mean(one: float, weight: int, other: float, other_weight: int) -> float:
    rows = weight + other_weight
    return (one * weight + other * other_weight) / rows if rows else 0.0


def _share(value: float) -> float:
    # SQL and JSON cannot store a NaN.
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0

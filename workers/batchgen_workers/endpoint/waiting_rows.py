"""The rows that an endpoint has not answered yet, in the order in which they are asked."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from batchgen.core.rows import GenerationRequest
from batchgen_workers.endpoint.bodies import Question

OUTAGES_TO_SUSPECT = 3  # outages of the endpoint while it had a row


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One row on its way, with the history that decides whether it is blamed."""

    request: GenerationRequest
    question: Question
    since: float = field(default_factory=time.monotonic)
    # Of its last request: when it was sent, and after how many cuts of the limit.
    sent_at: float = 0.0
    epoch: int = 0
    # True if it failed while nothing was answered, and was asked once more therefore.
    is_doubted: bool = False
    # Attempts that failed while the endpoint answered others.
    attempts: int = 0
    # Times that it went back although the endpoint answered others: as busy, and as away.
    refusals: int = 0
    returns: int = 0
    # Times that the endpoint went away while it had the row, and while it had no other one.
    outages: int = 0
    outages_alone: int = 0

    @property
    def key(self) -> int:
        """The key of its request."""
        return self.request.key

    @property
    def is_suspect(self) -> bool:
        """True if the row may be what ends the server: it is asked with no other one."""
        return self.outages >= OUTAGES_TO_SUSPECT


class WaitingRows:
    """A queue of rows; those that are suspects come first, each alone."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque()
        self._suspects: deque[Row] = deque()

    def __len__(self) -> int:
        return len(self._rows) + len(self._suspects)

    def add(self, row: Row) -> None:
        """Add a new row at the end."""
        self._rows.append(row)

    def put_back(self, row: Row) -> None:
        """Put a row that was asked already at the beginning."""
        (self._suspects if row.is_suspect else self._rows).appendleft(row)

    def discard(self, keys: frozenset[int]) -> None:
        """Drop rows; ignore unknown keys."""
        self._rows = deque(row for row in self._rows if row.key not in keys)
        self._suspects = deque(row for row in self._suspects if row.key not in keys)

    def next(self, *, running: int) -> Row | None:
        """Remove and return the row to ask beside `running` others; None if none may be asked."""
        if self._suspects:
            return None if running else self._suspects.popleft()
        return self._rows.popleft() if self._rows else None

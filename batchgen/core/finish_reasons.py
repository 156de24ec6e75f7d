"""Why answers ended, counted: over a part, a job, a dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReasons:
    """Answered rows by the finish reason of their first choice; `a + b` is that of both.

    Parts of versions that did not count are in neither number.
    """

    stop: int = 0  # by themselves, or at a stop string
    length: int = 0  # cut at max_tokens, or where the context was full

    def __add__(self, other: FinishReasons) -> FinishReasons:
        return FinishReasons(stop=self.stop + other.stop, length=self.length + other.length)


#: Of rows that nobody counted.
UNCOUNTED = FinishReasons()

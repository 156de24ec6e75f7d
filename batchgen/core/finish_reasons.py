"""Counts of the reasons why answers ended, over a part, a job or a dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReasons:
    """Numbers of answered rows by the finish reason of their first choice; `a + b` adds them up.

    Earlier versions did not count: rows of their parts are in neither number.
    """

    stop: int = 0  # ended by an end token, a stop string or a complete grammar
    length: int = 0  # cut at max_tokens or at the end of the context

    def __add__(self, other: FinishReasons) -> FinishReasons:
        return FinishReasons(stop=self.stop + other.stop, length=self.length + other.length)


#: For rows that were not counted.
UNCOUNTED = FinishReasons()

"""Isolation: finds the rows that end an engine, by halves.

    a b c d e f g h      end the engine together
    a b c d │ e f g h    the first half ends it, the second does not
    a b │ c d            …
    a                    ends it, and ends it again: poison

Each group runs with nothing else in a fresh engine. With one poisonous row among n, an engine dies
at most 2 + ceil(log2(n)) times, the first death included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

STRIKES = 2  # deaths of an engine that had a single row


class Isolation:
    """The groups of suspects still to be tried; whoever tries one says how it ended."""

    def __init__(self, suspects: Sequence[int]) -> None:
        """Begin with rows that are to be tried together."""
        # the last is tried next
        self._groups: list[Sequence[int]] = [suspects]
        self._strikes: Counter[int] = Counter()

    def next_group(self) -> Sequence[int] | None:
        """Take the rows to try next; None once nobody is suspected any more."""
        return self._groups.pop() if self._groups else None

    def try_again(self, group: Sequence[int]) -> None:
        """Keep a group whose engine ended for another reason, or that was not run."""
        if group:
            self._groups.append(group)

    def died(self, group: Sequence[int]) -> int | None:
        """Take the rows that were left when their engine died; return the one that is poison."""
        if len(group) > 1:
            middle = len(group) // 2
            self._groups += [group[middle:], group[:middle]]
            return None
        for row in group:
            self._strikes[row] += 1
            if self._strikes[row] >= STRIKES:
                return row
        self.try_again(group)
        return None

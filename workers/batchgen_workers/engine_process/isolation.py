"""Finds the rows that end an engine, by bisection.

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
    """The groups of suspected rows that are still to be tried.

    The caller runs each group and reports the outcome: `died`, `try_again`, or nothing if every
    row was answered.
    """

    def __init__(self, suspects: Sequence[int]) -> None:
        """Begin with one group."""
        # the last one is tried next
        self._groups: list[Sequence[int]] = [suspects]
        self._strikes: Counter[int] = Counter()

    def next_group(self) -> Sequence[int] | None:
        """Remove and return the group to try next; None once no row is suspected any more."""
        return self._groups.pop() if self._groups else None

    def try_again(self, group: Sequence[int]) -> None:
        """Put back a group whose engine ended for another reason, or that was not run."""
        if group:
            self._groups.append(group)

    def died(self, group: Sequence[int]) -> int | None:
        """Take the unanswered rows of an engine that died; return the row that is poison, if any.

        A group of several rows is cut into halves. A single row is poison after STRIKES deaths.
        """
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

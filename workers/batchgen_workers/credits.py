"""Credits: how many rows may be in the engine, so that neither side buffers without bound."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Credits:
    """A count of free places that several threads take from and give back to."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.total - self._free

    def take(self, count: int, *, give_up: Callable[[], bool]) -> bool:
        """Wait for `count` places and take them; return False as soon as `give_up` says so.

        Whoever makes `give_up` true calls `wake`. A count above the total would wait for ever.
        """
        assert count <= self.total, (count, self.total)
        with self._changed:
            self._changed.wait_for(lambda: give_up() or self._free >= count)
            if give_up():
                return False
            self._free -= count
            return True

    def give_back(self, count: int) -> None:
        """Free `count` places."""
        with self._changed:
            self._free += count
            assert self._free <= self.total, (self._free, self.total)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let every waiter look at its `give_up` again."""
        with self._changed:
            self._changed.notify_all()

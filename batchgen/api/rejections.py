"""Bounds how often an address may be told that its key is wrong.

An address has BURST refusals, and gets PER_SECOND of them back. Without one left, only keys that
were valid before are looked up. So one client cannot lock out the others behind the same proxy.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from batchgen.api.errors import ApiError

BURST: Final = 60.0
PER_SECOND: Final = 1.0
ADDRESSES: Final = 10_000  # that are remembered; the one that was refused longest ago is forgotten
KEYS: Final = 10_000


@dataclass(slots=True)
class _Budget:
    left: float
    at: float  # by the monotonic clock


@dataclass(slots=True)
class Rejections:
    """Counts refusals by address."""

    clock: Callable[[], float] = time.monotonic
    _budgets: OrderedDict[str, _Budget] = field(default_factory=OrderedDict)
    # public ids of keys that were right
    _known: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, address: str, key_id: str | None) -> None:
        """Raise ApiError 429 if the address has no refusal left and the key was never right."""
        with self._lock:
            budget = self._budgets.get(address)
            if budget is None or key_id in self._known or self._left(budget) >= 1.0:
                return
            seconds = max(1, round((1.0 - self._left(budget)) / PER_SECOND))
        raise ApiError(
            429,
            "Too many requests with a wrong key.",
            code="too_many_rejections",
            headers={"retry-after": str(seconds)},
        )

    def refused(self, address: str) -> None:
        """Note that a key of this address was wrong."""
        with self._lock:
            now = self.clock()
            budget = self._budgets.pop(address, None) or _Budget(BURST, now)
            self._budgets[address] = _Budget(max(self._left(budget) - 1.0, 0.0), now)
            _shorten(self._budgets, ADDRESSES)

    def accepted(self, key_id: str) -> None:
        """Note that a key was right."""
        with self._lock:
            self._known[key_id] = None
            self._known.move_to_end(key_id)
            _shorten(self._known, KEYS)

    def _left(self, budget: _Budget) -> float:
        return min(budget.left + (self.clock() - budget.at) * PER_SECOND, BURST)


def _shorten(remembered: OrderedDict[str, _Budget] | OrderedDict[str, None], limit: int) -> None:
    if len(remembered) > limit:
        remembered.popitem(last=False)

"""The gate before a claim: it admits one shard at a time, and none while the worker has no room.

A task that waits here holds a message but no lease, so other workers can claim the shard. While the
last rows of one shard are computed, the next one is claimed and fed: the engine never runs dry.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchgen.errors import Unavailable


class Draining(Unavailable):
    """This worker takes no more shards. Other workers can claim them."""


class ClaimGate:
    """Admits one feeder at a time, in order of arrival, while `ready` returns True."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        # one for each waiting thread, in order of arrival
        self._tickets: deque[object] = deque()
        self._busy = False
        self._closed = False
        self._paused_until = 0.0
        self._changed = threading.Condition()

    @property
    def is_closed(self) -> bool:
        """True once the worker drains."""
        return self._closed

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it for the block; raise Draining once the gate is closed."""
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
            try:
                while not self._closed and not (ticket is self._tickets[0] and self._free()):
                    self._changed.wait(self._pause_left())
                if self._closed:
                    raise Draining
                self._busy = True
            finally:
                self._tickets.remove(ticket)
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Admit no feeder for some seconds, for example because the disk is full."""
        with self._changed:
            self._paused_until = time.monotonic() + seconds
            self._changed.notify_all()

    def close(self) -> None:
        """Admit no feeder any more; those that wait raise Draining."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def look_again(self) -> None:
        """Call `ready` again, because its result may have changed."""
        with self._changed:
            self._changed.notify_all()

    def _free(self) -> bool:
        return not self._busy and self._pause_left() is None and self._ready()

    def _pause_left(self) -> float | None:
        left = self._paused_until - time.monotonic()
        return left if left > 0 else None

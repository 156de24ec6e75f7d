"""The gate before a claim: one shard is fed at a time, and none while the worker cannot.

A task that waits here holds a message, never a lease: the shard is free for other workers. While
one shard's last rows are computed the next one is claimed and fed, so the engine never runs dry.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchgen.errors import Unavailable


class Draining(Unavailable):
    """This worker takes no more shards. Another one will."""


class ClaimGate:
    """Admits one feeder at a time, first come first served, while `ready` says that it can be."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        # who waits, in order of arrival
        self._tickets: deque[object] = deque()
        self._busy = False
        self._closed = False
        self._paused_until = 0.0
        self._changed = threading.Condition()

    @property
    def is_closed(self) -> bool:
        """Whether the worker drains."""
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
        """Admit nobody for a while: the disk is full, say."""
        with self._changed:
            self._paused_until = time.monotonic() + seconds
            self._changed.notify_all()

    def close(self) -> None:
        """Admit nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def look_again(self) -> None:
        """Ask `ready` again: what it depends on has changed."""
        with self._changed:
            self._changed.notify_all()

    def _free(self) -> bool:
        return not self._busy and self._pause_left() is None and self._ready()

    def _pause_left(self) -> float | None:
        left = self._paused_until - time.monotonic()
        return left if left > 0 else None

"""Encodes rows on a thread of their own, so that a slow chat template delays no running row.

reader thread                         encoder thread                     step thread
  Add    ─► waiting [request …] ─►      engine.encode(request) ─► inbox ─►  engine.admit
  Abort  ─► leaves `waiting`, or is
            noted for the row in work ──────────────────────────► inbox ─►  engine.abort
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from batchgen.core.rows import GenerationRequest

NICENESS = 10  # of the encoder thread: if cores are scarce, the step thread goes first

Encode: TypeAlias = Callable[[GenerationRequest], Any]


class Encoder:
    """A queue of rows and the thread that encodes them, oldest first."""

    def __init__(
        self, *, on_encoded: Callable[[Any], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """Accept rows; they are encoded once `start` was called.

        Args:
            on_encoded: called with the result of `encode`, unless the row was aborted meanwhile.
                It must not block.
            on_failure: called once with the error of `encode`; no row is encoded after it.
        """
        self._on_encoded = on_encoded
        self._on_failure = on_failure
        self._waiting: deque[GenerationRequest] = deque()
        # Key of the row that is being encoded; None between two rows, and once it was aborted.
        self._current: int | None = None
        self._changed = threading.Condition()

    def start(self, encode: Encode) -> None:
        """Start the thread, which calls `encode` with one request at a time."""
        threading.Thread(target=self._run, args=(encode,), name="encoder", daemon=True).start()

    def put(self, requests: Sequence[GenerationRequest]) -> None:
        """Add rows to the queue."""
        with self._changed:
            self._waiting.extend(requests)
            self._changed.notify()

    def abort(self, keys: Collection[int]) -> None:
        """Forget rows: `on_encoded` is not called for them any more. Ignore unknown keys."""
        unwanted = frozenset(keys)
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one.key not in unwanted)
            if self._current in unwanted:
                self._current = None

    def _run(self, encode: Encode) -> None:
        _lower_priority()
        try:
            while True:
                request = self._next()
                self._deliver(request.key, encode(request))
        except Exception as error:  # noqa: BLE001 (thread boundary: the process ends with it)
            self._on_failure(error)

    def _next(self) -> GenerationRequest:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            request = self._waiting.popleft()
            self._current = request.key
            return request

    def _deliver(self, key: int, encoded: Any) -> None:
        # Under the lock: an abort comes either before the delivery, and stops it, or after it.
        with self._changed:
            if self._current == key:
                self._current = None
                self._on_encoded(encoded)


def _lower_priority() -> None:
    if sys.platform == "linux":  # only there a thread has a niceness of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

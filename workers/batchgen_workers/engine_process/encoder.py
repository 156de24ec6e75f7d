"""Encodes rows on a thread of their own, so that a slow chat template delays no running row.

reader thread                         encoder thread                     step thread
  Add    ─► waiting [request …] ─►      engine.encode(request) ─► inbox ─►  engine.admit
  Abort  ─► leaves `waiting`, or is
            noted for the row in work ──────────────────────────► inbox ─►  engine.abort

A template and a tokenizer need a core, and a step uses all of them. As long as encoded rows wait
for a place in the batch, the encoder therefore rests 19 times as long as it works.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from batchgen.core.rows import GenerationRequest

REST = 19  # seconds of rest for each second of work while encoded rows wait: 5 % of a core
LONGEST_REST = 1.0  # seconds
LOOK = 0.005  # seconds between two looks whether encoded rows still wait
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

    def start(self, encode: Encode, *, is_ahead: Callable[[], bool] = lambda: False) -> None:
        """Start the thread, which calls `encode` with one request at a time.

        While `is_ahead` returns True, encoded rows wait in the engine, and the thread rests.
        """
        threading.Thread(
            target=self._run, args=(encode, is_ahead), name="encoder", daemon=True
        ).start()

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

    def _run(self, encode: Encode, is_ahead: Callable[[], bool]) -> None:
        _lower_priority()
        try:
            while True:
                request = self._next()
                began = time.monotonic()
                self._deliver(request.key, encode(request))
                _rest(time.monotonic() - began, is_ahead)
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


def _rest(worked: float, is_ahead: Callable[[], bool]) -> None:
    """Leave the cores to the steps after so many seconds of work, while encoded rows wait."""
    until = time.monotonic() + min(REST * worked, LONGEST_REST)
    while is_ahead() and time.monotonic() < until:
        time.sleep(LOOK)


def _lower_priority() -> None:
    if sys.platform == "linux":  # only there a thread has a niceness of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

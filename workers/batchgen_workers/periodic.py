"""A thread that repeats one short action until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from batchgen.errors import BatchgenError
from batchgen_workers.logs import get_logger

log = get_logger(__name__)


class PeriodicThread:
    """Calls `action` every `interval` seconds, and at once when nudged.

    An action that raises is logged and called again after the interval.
    """

    def __init__(self, name: str, interval: float, action: Callable[[], None]) -> None:
        self._name = name
        self._interval = interval
        self._action = action
        self._nudged = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; it makes the first call at once."""
        self._thread.start()

    def nudge(self) -> None:
        """Call the action now instead of after the rest of the interval."""
        self._nudged.set()

    def stop(self) -> None:
        """Wait for the call in progress to end, and make no more calls."""
        self._stopping = True
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._action()
            except BatchgenError as error:
                # the next call tries again
                log.warning("periodic action failed", thread=self._name, error=error.message)
            except Exception:
                log.exception("periodic action failed", thread=self._name)
            self._nudged.wait(self._interval)
            self._nudged.clear()

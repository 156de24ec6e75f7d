"""One word to everything that waits for the same work: it is not wanted any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelToken:
    """Is cancelled once, for good, from any thread.

    with token.calling(condition_notifier):   # a waiter that looks at `is_cancelled`
        …
    """

    def __init__(self) -> None:
        #: Set once cancelled; for libraries that wait for an event.
        self.event = threading.Event()
        # A dict for its order.
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is not wanted any more."""
        return self.event.is_set()

    def cancel(self) -> None:
        """Say so, and call every callback; the second time changes nothing."""
        with self._lock:
            self.event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called once if the token is cancelled during the block, or was before.

        It is called on the thread that cancels, with no lock held.
        """
        handle = object()
        with self._lock:
            if not self.event.is_set():
                self._callbacks[handle] = callback
                callback = _nothing
        callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(handle, None)

    def wait_for(self, condition: threading.Condition, happened: Callable[[], bool]) -> bool:
        """Wait on a condition, whose lock is held, until `happened`; return False if cancelled.

        What happened first counts where both did.
        """

        def wake() -> None:
            with condition:
                condition.notify_all()

        with self.calling(wake):
            condition.wait_for(lambda: happened() or self.is_cancelled)
        return happened()


def _nothing() -> None:
    """The callback has a place: it is called later."""

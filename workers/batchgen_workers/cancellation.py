"""A token that tells every thread which waits for the same work that it was cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelToken:
    """A flag that any thread can set once, with callbacks that wake the threads that wait.

    with token.calling(wake):   # `wake` notifies a waiter, which checks `is_cancelled`
        …
    """

    def __init__(self) -> None:
        #: Set once the token is cancelled; for libraries that wait for an event.
        self.event = threading.Event()
        # A dict, because it keeps the order.
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()

    @property
    def is_cancelled(self) -> bool:
        """True once the token was cancelled."""
        return self.event.is_set()

    def cancel(self) -> None:
        """Cancel the token and call every callback; a second call does nothing."""
        with self._lock:
            self.event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` once if the token is cancelled before or during the block.

        The thread that cancels calls it, and holds no lock of the token.
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
        """Wait until `happened` is true or the token is cancelled; return `happened()`.

        The caller holds the lock of `condition`.
        """

        def wake() -> None:
            with condition:
                condition.notify_all()

        with self.calling(wake):
            condition.wait_for(lambda: happened() or self.is_cancelled)
        return happened()


def _nothing() -> None:
    """Do nothing; it stands in for a callback that was stored to be called later."""

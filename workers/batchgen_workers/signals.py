"""Signals that interrupt nothing: none ever raises, or takes a lock, in a thread that commits."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What a service manager, a terminal and its closing send; all mean the same here.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


@contextmanager
def on_ending(act: Callable[[], None]) -> Iterator[None]:
    """Call `act`, on a thread of its own, for each signal to end that comes during the block.

    Outside the main thread, where no handler can be set, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler runs between any two instructions of the main thread: only a SimpleQueue may be
    # touched there.
    arrived: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def watch() -> None:
        while arrived.get():
            act()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    former = {number: signal.signal(number, lambda *_: arrived.put(True)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        arrived.put(False)
        watcher.join()

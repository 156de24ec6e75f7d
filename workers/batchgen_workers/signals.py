"""Signals that interrupt nothing: none ever raises, or takes a lock, in a thread that commits.

signal ─► C handler, in whatever thread the kernel chose ─► pipe ─► thread "signals" ─► act()

Python itself would run a handler in the main thread only, and only once that executes bytecode: of
two signals at once another thread may take the second, and a main thread that waits without a
limit sleeps on. What is written to the pipe needs no main thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What a service manager, a terminal and its closing send; all mean the same here.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_STOP = b"\0"  # no signal has this number


@contextmanager
def on_ending(act: Callable[[], None]) -> Iterator[None]:
    """Call `act`, on a thread of its own, for each signal to end that comes during the block.

    Outside the main thread, where no handler can be set, signals stay as they are; so does a
    SIGHUP that is ignored, as `nohup` wants it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived, wake = os.pipe()
    os.set_blocking(wake, False)  # a handler never waits; a full pipe has woken the thread already
    watcher = threading.Thread(target=_watch, args=(arrived, act), name="signals", daemon=True)
    watcher.start()
    former_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _noted) for number in _wanted()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_wake)
        os.set_blocking(wake, True)
        os.write(wake, _STOP)
        watcher.join()
        os.close(wake)
        os.close(arrived)


def _wanted() -> list[signal.Signals]:
    """Return the signals to end, without a SIGHUP that whoever started us had ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in ENDING if not (ignored and number == signal.SIGHUP)]


def _watch(arrived: int, act: Callable[[], None]) -> None:
    while (number := os.read(arrived, 1)) != _STOP:
        if number[0] in ENDING:
            act()


def _noted(*_: object) -> None:
    """Do nothing: the number is in the pipe by now."""

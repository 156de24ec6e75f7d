"""Handles signals on a thread of their own, so that they interrupt no thread that commits.

signal ─► C handler, in the thread that the kernel chose ─► pipe ─► thread "signals" ─► act()

Python runs a handler in the main thread only, and only once that executes bytecode. If two signals
come at once, another thread may receive the second, and a main thread that waits without a limit
does not wake up. The pipe needs no main thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: The signals of a service manager, of a terminal and of its closing; all end the process.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_STOP = b"\0"  # no signal has this number


@contextmanager
def on_ending(act: Callable[[], None]) -> Iterator[None]:
    """Call `act`, on a thread of its own, for each signal to end that comes during the block.

    Outside the main thread no handler can be set, and nothing changes. A SIGHUP that is ignored,
    as under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived, wake = os.pipe()
    os.set_blocking(wake, False)  # a handler must not wait; a full pipe has woken the thread
    watcher = threading.Thread(target=_watch, args=(arrived, act), name="signals", daemon=True)
    watcher.start()
    former_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _do_nothing) for number in _handled()}
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


def _handled() -> list[signal.Signals]:
    """Return the signals to end, without a SIGHUP that the parent process made ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in ENDING if not (ignored and number == signal.SIGHUP)]


def _watch(arrived: int, act: Callable[[], None]) -> None:
    while (number := os.read(arrived, 1)) != _STOP:
        if number[0] in ENDING:
            act()


def _do_nothing(*_: object) -> None:
    """Do nothing: the C handler has written the signal's number to the pipe."""

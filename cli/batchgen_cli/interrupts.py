"""Ctrl-C that is never lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def remembering_interrupts() -> Iterator[Callable[[], None]]:
    """Yield a check that raises KeyboardInterrupt where one came during the block and was lost.

    Ctrl-C raises at once, as ever; but what a signal handler raises within a finalizer, or a
    callback out of C, goes no further, and a loop would never hear of it. An ignored signal stays
    ignored.
    """
    came = False

    def raise_and_remember(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    former = signal.getsignal(signal.SIGINT)
    if former is not signal.default_int_handler:
        yield check
        return
    signal.signal(signal.SIGINT, raise_and_remember)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, former)

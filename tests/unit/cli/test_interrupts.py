from __future__ import annotations

import signal

import pytest

from batchgen_cli.interrupts import remembering_interrupts


class Careless:
    """An object whose finalizer is interrupted."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_raises_at_once() -> None:
    with remembering_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_raised_by_the_next_check() -> None:
    with remembering_interrupts() as check:
        check()
        careless = Careless()
        del careless
        with pytest.raises(KeyboardInterrupt):
            check()


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembering_interrupts() as check:
            signal.raise_signal(signal.SIGINT)
            check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)

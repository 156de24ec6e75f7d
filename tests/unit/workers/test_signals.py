from __future__ import annotations

import os
import signal
import threading

import pytest

from batchgen_workers.signals import ENDING, on_ending
from tests.support.workers import wait_until


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_acts_elsewhere_and_interrupts_nothing(number: signal.Signals) -> None:
    threads: list[threading.Thread] = []
    with on_ending(lambda: threads.append(threading.current_thread())):
        os.kill(os.getpid(), number)
        wait_until(lambda: bool(threads))
    assert threads[0] is not threading.main_thread()


def test_each_signal_acts_again() -> None:
    calls: list[bool] = []
    with on_ending(lambda: calls.append(True)):
        for count in (1, 2, 3):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda count=count: len(calls) == count)  # type: ignore[misc]


def test_former_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with on_ending(lambda: None):
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before


def test_a_signal_does_not_wait_for_a_lock_the_main_thread_holds() -> None:
    stopping = threading.Event()
    lock = vars(stopping)["_cond"]
    with on_ending(stopping.set), lock:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopping.wait(10)


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGTERM)
    during: list[object] = []

    def elsewhere() -> None:
        with on_ending(lambda: None):
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert during == [before]

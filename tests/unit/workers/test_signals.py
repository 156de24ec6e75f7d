from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from batchgen_workers.signals import ENDING, on_ending
from tests.support.workers import wait_until


@pytest.fixture(autouse=True)
def hang_ups() -> Iterator[None]:
    """Let SIGHUP end processes, as at a terminal: `nohup` ignores it, for all that it starts."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


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


# A main thread that waits without a limit, as those of our processes do, beside busy and idle ones.
WAITING = """
import sys, threading, time
from batchgen_workers.signals import on_ending
def work():
    while True:
        sum(range(1000))
        time.sleep(0)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
for _ in sys.stdin:
    arrived, both = [], threading.Event()
    def act():
        arrived.append(True)
        if len(arrived) == 2:
            both.set()
    with on_ending(act):
        print("waiting", flush=True)
        both.wait()
    print("ended", flush=True)
"""


def test_of_two_signals_at_once_none_is_lost_while_the_main_thread_waits() -> None:
    pairs = list(itertools.permutations(ENDING, 2))
    command = [sys.executable, "-c", WAITING]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)  # also if it waits for a signal that never comes
        assert process.stdin is not None
        assert process.stdout is not None
        for pair in pairs * 4:
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "waiting\n"
            for number in pair:
                process.send_signal(number)
            assert process.stdout.readline() == "ended\n", pair
        process.stdin.close()
        assert process.wait() == 0


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    calls: list[bool] = []
    try:
        with on_ending(lambda: calls.append(True)):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: bool(calls))
    finally:
        signal.signal(signal.SIGHUP, former)
    assert len(calls) == 1

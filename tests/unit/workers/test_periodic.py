from __future__ import annotations

import threading

from batchgen.errors import DatabaseUnavailable
from batchgen_workers.periodic import PeriodicThread
from tests.support.workers import wait_until

HOUR = 3600.0


def test_the_first_tick_comes_at_once_and_others_when_nudged() -> None:
    ticks: list[bool] = []
    periodic = PeriodicThread("test", HOUR, lambda: ticks.append(True))
    periodic.start()
    for count in (1, 2, 3):
        wait_until(lambda count=count: len(ticks) == count)  # type: ignore[misc]
        periodic.nudge()
    periodic.stop()


def test_ticks_come_by_themselves() -> None:
    ticks: list[bool] = []
    periodic = PeriodicThread("test", 0.001, lambda: ticks.append(True))
    periodic.start()
    wait_until(lambda: len(ticks) > 3)
    periodic.stop()


def test_a_failing_tick_is_not_the_last() -> None:
    ticks: list[bool] = []

    def fail() -> None:
        ticks.append(True)
        raise DatabaseUnavailable if len(ticks) == 1 else ZeroDivisionError

    periodic = PeriodicThread("test", 0.001, fail)
    periodic.start()
    wait_until(lambda: len(ticks) > 3)
    periodic.stop()


def test_stopping_waits_for_the_tick_in_progress() -> None:
    entered, leave = threading.Event(), threading.Event()
    ended: list[bool] = []

    def slow() -> None:
        entered.set()
        leave.wait()
        ended.append(True)

    periodic = PeriodicThread("test", HOUR, slow)
    periodic.start()
    entered.wait()
    stopper = threading.Thread(target=periodic.stop)
    stopper.start()
    assert ended == []
    leave.set()
    stopper.join()
    assert ended == [True]


def test_a_ticker_that_never_ran_can_be_stopped() -> None:
    PeriodicThread("test", HOUR, lambda: None).stop()

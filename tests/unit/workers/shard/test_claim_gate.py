from __future__ import annotations

import threading
import time

import pytest

from batchgen_workers.shard.claim_gate import ClaimGate, Draining
from tests.support.workers import wait_until


def test_one_at_a_time() -> None:
    gate = ClaimGate(lambda: True)
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        for _ in range(50):
            with gate.turn():
                inside.append(number)
                most.append(len(inside))
                time.sleep(0)
                inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200
    assert max(most) == 1


def test_first_come_first_served() -> None:
    gate = ClaimGate(lambda: True)
    order: list[int] = []

    def enter(number: int) -> None:
        with gate.turn():
            order.append(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(5)]
    with gate.turn():
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda waiting=waiting: len(gate._tickets) == waiting)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == list(range(5))


def test_the_gate_opens_again_after_a_failure() -> None:
    gate = ClaimGate(lambda: True)
    with pytest.raises(ValueError, match="inside"), gate.turn():
        raise ValueError("inside")
    with gate.turn():
        pass


def test_nobody_enters_until_the_worker_is_ready() -> None:
    ready: list[bool] = []
    gate = ClaimGate(lambda: bool(ready))
    entered = threading.Event()

    def enter() -> None:
        with gate.turn():
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    gate.look_again()
    assert not entered.is_set()
    ready.append(True)
    gate.look_again()
    assert entered.wait(10)
    thread.join()


def test_a_closed_gate_turns_everybody_away() -> None:
    gate = ClaimGate(lambda: False)
    refused = threading.Event()

    def enter() -> None:
        try:
            with gate.turn():
                pass
        except Draining:
            refused.set()

    thread = threading.Thread(target=enter)
    thread.start()
    gate.close()
    assert refused.wait(10)
    thread.join()
    assert gate.is_closed


def test_a_pause_ends_by_itself() -> None:
    gate = ClaimGate(lambda: True)
    entered: list[float] = []

    def enter() -> None:
        with gate.turn():
            entered.append(time.monotonic())

    began = time.monotonic()
    gate.pause(0.05)
    thread = threading.Thread(target=enter)
    thread.start()
    wait_until(lambda: bool(entered))
    thread.join()
    assert entered[0] - began >= 0.05

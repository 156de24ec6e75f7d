from __future__ import annotations

import threading

from batchgen_workers.credits import Credits
from tests.support.workers import wait_until


def never() -> bool:
    return False


def test_places_are_taken_and_given_back() -> None:
    credits_ = Credits(10)
    assert credits_.take(7, give_up=never)
    assert credits_.taken == 7
    credits_.give_back(5)
    assert credits_.taken == 2


def test_taking_waits_until_there_is_room() -> None:
    credits_ = Credits(10)
    credits_.take(8, give_up=never)
    taken = threading.Event()

    def take() -> None:
        credits_.take(5, give_up=never)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    credits_.give_back(2)
    assert not taken.is_set()
    credits_.give_back(1)
    assert taken.wait(10)
    thread.join()
    assert credits_.taken == 10


def test_a_waiter_gives_up_when_it_is_woken() -> None:
    credits_ = Credits(1)
    credits_.take(1, give_up=never)
    given_up = threading.Event()
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.append(credits_.take(1, give_up=given_up.is_set))
    )
    thread.start()
    given_up.set()
    credits_.wake()
    wait_until(lambda: results == [False])
    thread.join()
    assert credits_.taken == 1


def test_giving_up_wins_over_free_places() -> None:
    credits_ = Credits(5)
    assert not credits_.take(1, give_up=lambda: True)
    assert credits_.taken == 0

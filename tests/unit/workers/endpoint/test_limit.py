"""The limit against an endpoint that holds so many requests and refuses every other one."""

from __future__ import annotations

from collections import deque

import pytest

from batchgen_workers.endpoint.limit import FIRST, Limit


def run(limit: Limit, capacity: int, windows: int) -> list[int]:
    """Serve requests in rounds of as many as are allowed; return how many were held in each."""
    held: deque[int] = deque()
    rounds = []
    for _ in range(windows):
        refused = 0
        while len(held) + refused < limit.allowed:
            epoch = limit.epoch
            if len(held) < capacity:
                held.append(epoch)
            else:
                refused += 1
                limit.refused(epoch=epoch, held=len(held))
        rounds.append(len(held))
        in_use = len(held)
        for _ in range(in_use):
            limit.succeeded(in_use=in_use)
        held.clear()
    return rounds


@pytest.mark.parametrize("capacity", [1, 3, 10, 50, 100])
def test_a_storm_settles_at_what_the_endpoint_holds(capacity: int) -> None:
    limit = Limit(128)
    run(limit, capacity, 200)
    settled = run(limit, capacity, 400)
    assert sum(settled) / len(settled) >= 0.9 * capacity


@pytest.mark.parametrize("capacity", [3, 10, 50])
def test_it_asks_one_more_than_there_is_room_for_ever_more_rarely(capacity: int) -> None:
    limit = Limit(128)
    above = []  # of each window, the requests beyond what the endpoint holds
    for _ in range(400):
        above.append(max(0, limit.allowed - capacity))
        run(limit, capacity, 1)
    assert max(above[20:]) == 1
    assert sum(above[20:220]) > sum(above[220:]) > 0


def test_without_a_refusal_it_grows_to_the_most() -> None:
    limit = Limit(100)
    assert limit.allowed == FIRST
    run(limit, 1000, 5)
    assert limit.allowed == 100


def test_it_is_found_again_when_the_endpoint_holds_more() -> None:
    limit = Limit(128)
    run(limit, 10, 300)
    run(limit, 60, 3000)
    assert limit.allowed >= 54


def test_refusals_of_one_storm_cut_once() -> None:
    limit = Limit(128)
    for held in range(15, 8, -1):
        limit.refused(epoch=0, held=held)
    assert (limit.allowed, limit.epoch) == (FIRST // 2, 1)


def test_a_timeout_halves() -> None:
    limit = Limit(128)
    limit.slowed(epoch=0)
    limit.slowed(epoch=0)
    assert limit.allowed == FIRST // 2


def test_successes_count_only_while_all_that_is_allowed_is_in_use() -> None:
    limit = Limit(128)
    for _ in range(1000):
        limit.succeeded(in_use=FIRST - 1)
    assert limit.allowed == FIRST

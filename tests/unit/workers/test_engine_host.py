from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.engine.config import EngineConfig
from batchgen.errors import EngineFailed, UnsupportedModel
from batchgen.io.params import SamplingParams
from batchgen.io.rows import Generation, GenerationRequest
from batchgen_workers import engine_host, testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_client import EngineClient
from batchgen_workers.engine_host import LEAST_PLACES, EngineHost, EngineRow
from tests.support.holding import Hold
from tests.support.workers import wait_until

OWNER = "a shard"
CONFIG = EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=4)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_host, "PAUSE_AFTER_DEATH", 0.0)


@contextmanager
def running(*factories: str, max_num_seqs: int = 4) -> Iterator[EngineHost]:
    """Yield a started host; each new child takes the next factory, the last one stays."""
    names = list(factories)
    config = replace(CONFIG, max_num_seqs=max_num_seqs)

    def spawn(halvings: int) -> EngineClient:
        factory = names.pop(0) if len(names) > 1 else names[0]
        return EngineClient(config.halved(halvings), factory=factory)

    host = EngineHost(spawn, max_num_seqs=max_num_seqs)
    try:
        host.start(CancelToken())
        yield host
    finally:
        host.close()


def submit(
    host: EngineHost, *prompts: str, first: int = 1, apart: bool = False, owner: object = OWNER
) -> dict[int, Generation]:
    """Submit rows with the keys from `first` on; return what comes, by key."""
    received: dict[int, Generation] = {}
    requests = [
        GenerationRequest(key=key, params=SamplingParams(max_tokens=1), prompt=prompt)
        for key, prompt in enumerate(prompts, start=first)
    ]

    def receive(generation: Generation) -> None:
        assert generation.key not in received
        received[generation.key] = generation

    rows = [EngineRow(request, receive, owner) for request in requests]
    for at in range(0, len(rows), LEAST_PLACES):
        assert host.submit(rows[at : at + LEAST_PLACES], CancelToken(), apart=apart)
    return received


def codes(received: dict[int, Generation]) -> dict[int, str | None]:
    """Return the error code of each answer."""
    return {key: one.error.code if one.error else None for key, one in sorted(received.items())}


def test_a_dead_child_is_replaced_and_the_row_that_ended_it_is_poison() -> None:
    deaths: list[list[object]] = []
    with running(testing.FAST) as host:
        host.on_death = lambda owners, error: deaths.append(owners)
        assert host.is_ready
        received = submit(host, testing.EXIT)
        wait_until(lambda: codes(received) == {1: "poison"})
        assert deaths == [[OWNER], [OWNER]]
        wait_until(lambda: host.is_ready)
        others = submit(host, "hello", first=2)
        wait_until(lambda: codes(others) == {2: None})
        assert host.failure is None


def test_the_rows_beside_a_poisonous_one_are_answered() -> None:
    with running(testing.FAST) as host:
        prompts = [f"row {row}" for row in range(8)]
        prompts[5] = testing.RAISE
        received = submit(host, *prompts)
        wait_until(lambda: len(received) == 8)
        assert codes(received) == {key: "poison" if key == 6 else None for key in range(1, 9)}


def test_rows_of_others_wait_until_the_suspects_are_judged() -> None:
    with running(testing.FAST) as host:
        received = submit(host, "a", "b", testing.EXIT, "d")
        others = submit(host, "e", first=10)
        wait_until(lambda: bool(others))
        assert codes(received) == {1: None, 2: None, 3: "poison", 4: None}


def test_an_engine_that_ends_without_reason_ends_the_host_and_blames_no_row() -> None:
    with running(testing.BROKEN) as host:
        received = submit(host, "a", "b")
        wait_until(lambda: host.failure is not None)
        assert received == {}
        assert not host.is_ready
        with pytest.raises(EngineFailed, match="in a row without an answer"):
            submit(host, "c", first=10)


def test_who_waits_for_a_new_child_is_told() -> None:
    changes: list[bool] = []
    with running(testing.FAST) as host:
        submit(host, testing.EXIT)
        wait_until(lambda: not host.is_ready)
        host.on_change = lambda: changes.append(host.is_ready)
        wait_until(lambda: changes[-1:] == [True])


def test_a_child_killed_from_outside_says_nothing_of_its_rows(hold: Hold) -> None:
    deaths: list[list[object]] = []
    hold.after(0)
    with running(testing.FAST) as host:
        host.on_death = lambda owners, error: deaths.append(owners)
        received = submit(host, *("row",) * 8)
        assert host._client is not None
        os.kill(host._client.pid, signal.SIGKILL)
        hold.release()
        wait_until(lambda: len(received) == 8)
        assert set(codes(received).values()) == {None}
        assert deaths == []


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does() -> None:
    deaths: list[list[object]] = []
    with running(testing.FAST, max_num_seqs=16) as host:
        host.on_death = lambda owners, error: deaths.append(owners)
        received = submit(host, *(f"{testing.OOM}4",) * 40)
        wait_until(lambda: len(received) == 40)
        assert set(codes(received).values()) == {None}
        assert deaths == []
        assert host.info is not None
        assert host.info.max_num_seqs == 4


def test_a_row_that_alone_needs_too_much_memory_is_poison() -> None:
    with running(testing.FAST, max_num_seqs=2) as host:
        received = submit(host, testing.OOM, "small")
        wait_until(lambda: codes(received) == {1: "poison", 2: None})


def release_once_suspects_wait(host: EngineHost, hold: Hold) -> None:
    wait_until(lambda: bool(host._apart) and not host.is_ready)
    hold.release()


def test_rows_apart_run_with_nothing_else(hold: Hold) -> None:
    hold.after(0)
    with running(testing.FAST, max_num_seqs=64) as host:
        received = submit(host, *("row",) * 32)
        releasing = threading.Thread(target=release_once_suspects_wait, args=(host, hold))
        releasing.start()
        # they would run out of memory beside one other row of their kind
        apart = submit(host, *(f"{testing.OOM}32",) * 32, first=100, apart=True)
        releasing.join()
        assert len(received) == 32
        assert set(codes(apart).values()) == {None}
        again = submit(host, "after", first=200)
        wait_until(lambda: codes(again) == {200: None})


def test_rows_taken_back_are_suspected_no_more() -> None:
    with running(testing.FAST) as host:
        submit(host, testing.EXIT)
        received = submit(host, "b", first=2, owner="another shard")
        host.take_back(OWNER)
        wait_until(lambda: codes(received) == {2: None})
        wait_until(lambda: host.is_ready)
        assert host.outstanding == 0


def test_no_more_rows_are_in_flight_than_there_are_places() -> None:
    with running(testing.FAST) as host:
        held = submit(host, *(testing.HANG,) * host.places)
        token = CancelToken()
        entered: list[bool] = []
        row = EngineRow(
            GenerationRequest(key=100, params=SamplingParams(), prompt="one too many"), print
        )
        waiting = threading.Thread(target=lambda: entered.append(host.submit([row], token)))
        waiting.start()
        assert host.outstanding == host.places
        token.cancel()
        waiting.join(10)
        assert entered == [False]
        assert host.outstanding == host.places
        host.take_back(OWNER)
        assert host.outstanding == 0
        assert held == {}


def test_a_death_is_told_to_the_owners_of_the_rows_it_had(hold: Hold) -> None:
    deaths: list[list[object]] = []
    hold.after(0)
    with running(testing.FAST) as host:
        host.on_death = lambda owners, error: deaths.append(owners)
        submit(host, "a", "b", owner="first")
        submit(host, testing.EXIT, first=10, owner="second")
        wait_until(lambda: bool(deaths))
        assert deaths[0] == ["first", "second"]


def test_a_child_that_cannot_start_again_ends_the_engine_with_its_reason() -> None:
    with running(testing.FAST, testing.REFUSING) as host:
        submit(host, testing.EXIT)
        wait_until(lambda: host.failure is not None)
        assert host.failure is not None
        assert "bypasses the attention interface" in host.failure.message


def test_the_first_start_fails_with_the_childs_own_error() -> None:
    host = EngineHost(lambda _: EngineClient(CONFIG, factory=testing.REFUSING), max_num_seqs=4)
    with pytest.raises(UnsupportedModel):
        host.start(CancelToken())
    host.close()
    assert host.failure is None


def test_a_child_that_hangs_is_killed_and_replaced() -> None:
    deaths: list[list[object]] = []
    with running(testing.FAST) as host:
        host.on_death = lambda owners, error: deaths.append(owners)
        host.check_stalled(0.0)
        submit(host, testing.HANG)

        def killed() -> bool:
            host.check_stalled(0.1)
            return len(deaths) == 2 and host.is_ready

        wait_until(killed)
        assert deaths == [[OWNER], [OWNER]]


def test_the_time_of_the_first_row_survives_a_death() -> None:
    with running(testing.FAST) as host:
        assert host.first_row_at is None
        received = submit(host, testing.EXIT)
        first = host.first_row_at
        wait_until(lambda: bool(received) and host.is_ready)
        submit(host, "b", first=2)
        assert host.first_row_at == first is not None

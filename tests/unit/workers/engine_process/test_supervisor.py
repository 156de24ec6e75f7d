from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import EngineFailed, UnsupportedModel
from batchgen.telemetry.catalogue import Process
from batchgen_workers import testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process import supervisor as supervisor_module
from batchgen_workers.engine_process.process import EngineProcess
from batchgen_workers.engine_process.supervisor import LEAST_PLACES, EngineRow, EngineSupervisor
from tests.support.holding import Hold
from tests.support.metrics import Changes
from tests.support.workers import wait_until

OWNER = "a shard"
CONFIG = EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=4)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE_AFTER_DEATH", 0.0)


@contextmanager
def running(*factories: str, max_num_seqs: int = 4) -> Iterator[EngineSupervisor]:
    """Yield a started supervisor; each new child takes the next factory, the last one stays."""
    names = list(factories)
    config = replace(CONFIG, max_num_seqs=max_num_seqs)

    def spawn(halvings: int) -> EngineProcess:
        factory = names.pop(0) if len(names) > 1 else names[0]
        return EngineProcess(config.halved(halvings), factory=factory)

    supervisor = EngineSupervisor(spawn, max_num_seqs=max_num_seqs)
    try:
        supervisor.start(CancelToken())
        yield supervisor
    finally:
        supervisor.close()


def submit(
    supervisor: EngineSupervisor,
    *prompts: str,
    first: int = 1,
    apart: bool = False,
    owner: object = OWNER,
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
        assert supervisor.submit(rows[at : at + LEAST_PLACES], CancelToken(), apart=apart)
    return received


def codes(received: dict[int, Generation]) -> dict[int, str | None]:
    """Return the error code of each answer."""
    return {key: one.error.code if one.error else None for key, one in sorted(received.items())}


def test_a_dead_child_is_replaced_and_the_row_that_ended_it_is_poison() -> None:
    deaths: list[list[object]] = []
    changes = Changes(Process.WORKER)
    with running(testing.FAST) as supervisor:
        supervisor.on_death = lambda owners, error: deaths.append(owners)
        assert supervisor.is_ready
        received = submit(supervisor, testing.EXIT)
        wait_until(lambda: codes(received) == {1: "poison"})
        assert deaths == [[OWNER], [OWNER]]
        wait_until(lambda: supervisor.is_ready)
        others = submit(supervisor, "hello", first=2)
        wait_until(lambda: codes(others) == {2: None})
        assert supervisor.failure is None
    assert changes()["batchgen_engine_restarts_total"] == len(deaths)


def test_the_rows_beside_a_poisonous_one_are_answered() -> None:
    with running(testing.FAST) as supervisor:
        prompts = [f"row {row}" for row in range(8)]
        prompts[5] = testing.RAISE
        received = submit(supervisor, *prompts)
        wait_until(lambda: len(received) == 8)
        assert codes(received) == {key: "poison" if key == 6 else None for key in range(1, 9)}


def test_rows_of_others_wait_until_the_suspects_are_judged() -> None:
    with running(testing.FAST) as supervisor:
        received = submit(supervisor, "a", "b", testing.EXIT, "d")
        others = submit(supervisor, "e", first=10)
        wait_until(lambda: bool(others))
        assert codes(received) == {1: None, 2: None, 3: "poison", 4: None}


def test_an_engine_that_ends_without_reason_ends_the_host_and_blames_no_row() -> None:
    with running(testing.BROKEN) as supervisor:
        received = submit(supervisor, "a", "b")
        wait_until(lambda: supervisor.failure is not None)
        assert received == {}
        assert not supervisor.is_ready
        with pytest.raises(EngineFailed, match="in a row without an answer"):
            submit(supervisor, "c", first=10)


def test_who_waits_for_a_new_child_is_told() -> None:
    changes: list[bool] = []
    with running(testing.FAST) as supervisor:
        submit(supervisor, testing.EXIT)
        wait_until(lambda: not supervisor.is_ready)
        supervisor.on_change = lambda: changes.append(supervisor.is_ready)
        wait_until(lambda: changes[-1:] == [True])


def test_a_child_killed_from_outside_says_nothing_of_its_rows(hold: Hold) -> None:
    deaths: list[list[object]] = []
    hold.after(0)
    with running(testing.FAST) as supervisor:
        supervisor.on_death = lambda owners, error: deaths.append(owners)
        received = submit(supervisor, *("row",) * 8)
        assert supervisor._process is not None
        os.kill(supervisor._process.pid, signal.SIGKILL)
        hold.release()
        wait_until(lambda: len(received) == 8)
        assert set(codes(received).values()) == {None}
        assert deaths == []


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does() -> None:
    deaths: list[list[object]] = []
    with running(testing.FAST, max_num_seqs=16) as supervisor:
        supervisor.on_death = lambda owners, error: deaths.append(owners)
        received = submit(supervisor, *(f"{testing.OOM}4",) * 40)
        wait_until(lambda: len(received) == 40)
        assert set(codes(received).values()) == {None}
        assert deaths == []
        assert supervisor.info is not None
        assert supervisor.info.max_num_seqs == 4


def test_a_row_that_alone_needs_too_much_memory_is_poison() -> None:
    with running(testing.FAST, max_num_seqs=2) as supervisor:
        received = submit(supervisor, testing.OOM, "small")
        wait_until(lambda: codes(received) == {1: "poison", 2: None})


def release_once_suspects_wait(supervisor: EngineSupervisor, hold: Hold) -> None:
    wait_until(lambda: bool(supervisor._apart) and not supervisor.is_ready)
    hold.release()


def test_rows_apart_run_with_nothing_else(hold: Hold) -> None:
    hold.after(0)
    with running(testing.FAST, max_num_seqs=64) as supervisor:
        received = submit(supervisor, *("row",) * 32)
        releasing = threading.Thread(target=release_once_suspects_wait, args=(supervisor, hold))
        releasing.start()
        # they would run out of memory beside one other row of their kind
        apart = submit(supervisor, *(f"{testing.OOM}32",) * 32, first=100, apart=True)
        releasing.join()
        assert len(received) == 32
        assert set(codes(apart).values()) == {None}
        again = submit(supervisor, "after", first=200)
        wait_until(lambda: codes(again) == {200: None})


def test_rows_taken_back_are_suspected_no_more() -> None:
    with running(testing.FAST) as supervisor:
        submit(supervisor, testing.EXIT)
        received = submit(supervisor, "b", first=2, owner="another shard")
        supervisor.take_back(OWNER)
        wait_until(lambda: codes(received) == {2: None})
        wait_until(lambda: supervisor.is_ready)
        assert supervisor.outstanding == 0


def test_no_more_rows_are_in_flight_than_there_are_places() -> None:
    with running(testing.FAST) as supervisor:
        held = submit(supervisor, *(testing.HANG,) * supervisor.places)
        token = CancelToken()
        entered: list[bool] = []
        row = EngineRow(
            GenerationRequest(key=100, params=SamplingParams(), prompt="one too many"), print
        )
        waiting = threading.Thread(target=lambda: entered.append(supervisor.submit([row], token)))
        waiting.start()
        assert supervisor.outstanding == supervisor.places
        token.cancel()
        waiting.join(10)
        assert entered == [False]
        assert supervisor.outstanding == supervisor.places
        supervisor.take_back(OWNER)
        assert supervisor.outstanding == 0
        assert held == {}


def test_a_death_is_told_to_the_owners_of_the_rows_it_had(hold: Hold) -> None:
    deaths: list[list[object]] = []
    hold.after(0)
    with running(testing.FAST) as supervisor:
        supervisor.on_death = lambda owners, error: deaths.append(owners)
        submit(supervisor, "a", "b", owner="first")
        submit(supervisor, testing.EXIT, first=10, owner="second")
        wait_until(lambda: bool(deaths))
        assert deaths[0] == ["first", "second"]


def test_a_child_that_cannot_start_again_ends_the_engine_with_its_reason() -> None:
    with running(testing.FAST, testing.REFUSING) as supervisor:
        submit(supervisor, testing.EXIT)
        wait_until(lambda: supervisor.failure is not None)
        assert supervisor.failure is not None
        assert "bypasses the attention interface" in supervisor.failure.message


def test_the_first_start_fails_with_the_childs_own_error() -> None:
    supervisor = EngineSupervisor(
        lambda _: EngineProcess(CONFIG, factory=testing.REFUSING), max_num_seqs=4
    )
    with pytest.raises(UnsupportedModel):
        supervisor.start(CancelToken())
    supervisor.close()
    assert supervisor.failure is None


def test_a_child_that_hangs_is_killed_and_replaced() -> None:
    deaths: list[list[object]] = []
    with running(testing.FAST) as supervisor:
        supervisor.on_death = lambda owners, error: deaths.append(owners)
        supervisor.check_stalled(0.0)
        submit(supervisor, testing.HANG)

        def killed() -> bool:
            supervisor.check_stalled(0.1)
            return len(deaths) == 2 and supervisor.is_ready

        wait_until(killed)
        assert deaths == [[OWNER], [OWNER]]


def test_the_time_of_the_first_row_survives_a_death() -> None:
    with running(testing.FAST) as supervisor:
        assert supervisor.first_row_at is None
        received = submit(supervisor, testing.EXIT)
        first = supervisor.first_row_at
        wait_until(lambda: bool(received) and supervisor.is_ready)
        submit(supervisor, "b", first=2)
        assert supervisor.first_row_at == first is not None

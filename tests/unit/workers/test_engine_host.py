from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchgen.engine.config import EngineConfig
from batchgen.errors import EngineFailed, UnsupportedModel
from batchgen.io.params import SamplingParams
from batchgen.io.rows import Generation, GenerationRequest
from batchgen_workers import engine_host, testing
from batchgen_workers.engine_client import EngineClient
from batchgen_workers.engine_host import MAX_DEATHS, EngineHost
from tests.support.workers import wait_until

CONFIG = EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=4)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_host, "PAUSE_AFTER_DEATH", 0.0)


@contextmanager
def running(*factories: str) -> Iterator[EngineHost]:
    """Yield a started host; each new child takes the next factory, the last one stays."""
    names = list(factories)

    def spawn() -> EngineClient:
        return EngineClient(CONFIG, factory=names.pop(0) if len(names) > 1 else names[0])

    host = EngineHost(spawn)
    try:
        host.start()
        yield host
    finally:
        host.close()


def submit(host: EngineHost, key: int, prompt: str = "hello") -> list[Generation]:
    received: list[Generation] = []
    request = GenerationRequest(key=key, params=SamplingParams(max_tokens=1), prompt=prompt)
    host.submit([request], received.append, give_up=lambda: False)
    return received


def test_a_dead_child_is_replaced() -> None:
    deaths: list[list[int]] = []
    with running(testing.FAST) as host:
        host.on_death = lambda keys, error: deaths.append(keys)
        assert host.is_ready
        submit(host, 1, testing.EXIT)
        wait_until(lambda: deaths == [[1]] and host.is_ready)
        received = submit(host, 2)
        wait_until(lambda: bool(received))
        assert host.failure is None


def test_who_waits_for_a_new_child_is_told() -> None:
    changes: list[bool] = []
    with running(testing.FAST) as host:
        host.on_change = lambda: changes.append(host.is_ready)
        submit(host, 1, testing.EXIT)
        wait_until(lambda: changes == [True])


def test_the_engine_is_given_up_after_deaths_without_an_answer() -> None:
    deaths: list[list[int]] = []
    changes: list[bool] = []
    with running(testing.FAST) as host:
        host.on_death = lambda keys, error: deaths.append(keys)
        host.on_change = lambda: changes.append(True)
        for key in range(MAX_DEATHS):
            wait_until(lambda: host.is_ready)
            submit(host, key, testing.EXIT)
            wait_until(lambda key=key: len(deaths) == key + 1)  # type: ignore[misc]
        wait_until(lambda: host.failure is not None)
        assert len(changes) == MAX_DEATHS
        assert not host.is_ready
        with pytest.raises(EngineFailed):
            submit(host, 99)


def test_an_answer_between_deaths_starts_the_count_anew() -> None:
    deaths: list[list[int]] = []
    with running(testing.FAST) as host:
        host.on_death = lambda keys, error: deaths.append(keys)
        for key in range(MAX_DEATHS + 1):
            wait_until(lambda: host.is_ready)
            received = submit(host, 2 * key)
            wait_until(lambda received=received: bool(received))  # type: ignore[misc]
            submit(host, 2 * key + 1, testing.EXIT)
            wait_until(lambda key=key: len(deaths) == key + 1)  # type: ignore[misc]
        wait_until(lambda: host.is_ready)
        assert host.failure is None


def test_a_child_that_cannot_start_again_ends_the_engine_with_its_reason() -> None:
    with running(testing.FAST, testing.REFUSING) as host:
        submit(host, 1, testing.EXIT)
        wait_until(lambda: host.failure is not None)
        assert host.failure is not None
        assert "bypasses the attention interface" in host.failure.message


def test_the_first_start_fails_with_the_childs_own_error() -> None:
    host = EngineHost(lambda: EngineClient(CONFIG, factory=testing.REFUSING))
    with pytest.raises(UnsupportedModel):
        host.start()
    host.close()
    assert host.failure is None


def test_a_child_that_hangs_is_killed_and_replaced() -> None:
    deaths: list[list[int]] = []
    with running(testing.FAST) as host:
        host.on_death = lambda keys, error: deaths.append(keys)
        host.check_stalled(0.0)
        submit(host, 1, testing.HANG)

        def killed() -> bool:
            host.check_stalled(0.1)
            return bool(deaths)

        wait_until(killed)
        wait_until(lambda: host.is_ready)


def test_the_time_of_the_first_row_survives_a_death() -> None:
    with running(testing.FAST) as host:
        assert host.first_row_at is None
        submit(host, 1, testing.EXIT)
        first = host.first_row_at
        wait_until(lambda: not host.is_ready)
        wait_until(lambda: host.is_ready)
        submit(host, 2)
        assert host.first_row_at == first is not None

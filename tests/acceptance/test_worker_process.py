"""Worker processes on real servers: how they end and wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.repair.invariants import check_invariants
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers import testing
from batchgen_workers.queue.broker_server import BrokerServer
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.processes import (
    Processes,
    await_end,
    dataset_rows,
    half_done,
    processes,
)
from tests.support.workers import is_alive, questions, submit_rows, wait_until

ROWS = 100

STACK = """
import sys
from batchgen.settings import Settings
from batchgen_workers.service.local_stack import up
for event in up(Settings(), ["tiny"], factory=sys.argv[1]):
    print(event, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def model(home: Path) -> ModelRecord:
    return pin_model(home)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(Database(database_url))
    yield store
    store.close()


@pytest.fixture
def settings(home: Path, database_url: str, broker_url: str) -> Settings:
    return Settings(
        home=home,
        database_url=database_url,
        broker_url=broker_url,
        lease_ttl=60.0,
        drain_grace=0.3,
        redispatch_after=2.0,
        heartbeat_interval=1.0,
        engine={"max_num_seqs": 8},  # type: ignore[arg-type]
    )


@pytest.fixture
def starter(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    with processes(settings, tmp_path) as started:
        yield started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_signal_drains_into_a_checkpoint(
    store: Store,
    home: Path,
    model: ModelRecord,
    starter: Processes,
    hold: Hold,
    number: signal.Signals,
) -> None:
    job = submit_rows(store, home, model, questions(21), start=False)
    hold.after(20)
    starter.coordinator()
    worker = starter.worker(testing.FAST)
    wait_until(half_done(store, job, rows=20))
    children = worker.children()
    began = time.monotonic()
    worker.send(number)
    assert worker.wait() == 0
    assert time.monotonic() - began < starter.settings.drain_grace + 10
    (shard,) = store.jobs.shards(job.id)
    assert (shard.state, shard.lost, shard.last_error) == ("ready", 0, None)
    saved = store.leases.checkpoint_of(shard.id)
    assert saved is not None
    assert saved.n_rows == 20
    assert store.workers.list(alive_within=60.0) == []
    assert not any(is_alive(child) for child in children)
    assert check_invariants(store, LocalStorage(home)) == []


def test_another_worker_finishes_what_a_drained_one_left(
    store: Store, home: Path, model: ModelRecord, starter: Processes, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(ROWS), start=False)
    hold.after(10)
    starter.coordinator()
    first = starter.worker(testing.FAST)
    wait_until(half_done(store, job, rows=10))
    starter.worker(testing.FAST)
    wait_until(lambda: len(store.workers.list(alive_within=60.0)) == 2)
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    hold.release()
    await_end(store, job)
    rows = dataset_rows(store, home, job)
    assert 1 in {row.attempt for row in rows}


def test_a_broker_that_is_down_is_waited_for_and_spoken_of(
    store: Store, home: Path, model: ModelRecord, settings: Settings, tmp_path: Path
) -> None:
    broker = BrokerServer(home)
    absent = settings.model_copy(update={"broker_url": broker.url})
    with processes(absent, tmp_path) as starter:
        worker, coordinator = starter.worker(testing.FAST), starter.coordinator()
        job = submit_rows(store, home, model, questions(ROWS), start=False)
        wait_until(lambda: worker.said("Cannot connect"))
        wait_until(lambda: coordinator.said("broker unavailable"))
        server = broker.start()
        try:
            await_end(store, job)
            server.kill()  # and empty again, while nothing is in it that SQL does not know
            server.wait()
            server = broker.start()
            again = submit_rows(store, home, model, questions(ROWS, max_tokens=2), start=False)
            await_end(store, again)
        finally:
            server.kill()
            server.wait()
            broker.remove()
    dataset_rows(store, home, job)
    dataset_rows(store, home, again)


def test_a_worker_without_its_model_says_so(starter: Processes) -> None:
    worker = starter.worker()
    assert worker.wait() == 4
    assert worker.said("No model named 'tiny'")


def test_a_stack_brings_everything_and_takes_it_away(
    home: Path, model: ModelRecord, tmp_path: Path, sqlite_template: Path, hold: Hold
) -> None:
    (home / "batchgen.db").write_bytes(sqlite_template.read_bytes())
    store = Store(Database(f"sqlite:///{home / 'batchgen.db'}"))
    settings = Settings(home=home, drain_grace=0.0, lease_ttl=2.0, heartbeat_interval=1.0)
    with processes(settings, tmp_path) as starter:
        hold.after(10)
        stack = starter.script(STACK, testing.FAST)
        job = submit_rows(store, home, model, questions(ROWS), start=False)
        wait_until(half_done(store, job, rows=10))
        members = stack.children()
        assert len(members) == 3
        _kill(stack.log, "worker tiny")
        hold.release()
        await_end(store, job)
        dataset_rows(store, home, job)
        assert stack.said("worker tiny ended")
        members += stack.children()
        stack.send(signal.SIGTERM)
        assert stack.wait() == 0
        assert not any(is_alive(member) for member in members)
    store.close()


def test_a_killed_stack_leaves_nothing_running(
    home: Path, model: ModelRecord, tmp_path: Path, sqlite_template: Path
) -> None:
    (home / "batchgen.db").write_bytes(sqlite_template.read_bytes())
    settings = Settings(home=home, drain_grace=0.0)
    with processes(settings, tmp_path) as starter:
        stack = starter.script(STACK, testing.FAST)
        wait_until(lambda: stack.said("worker tiny started"))
        members = stack.children()
        wait_until(lambda: stack.said("listening"))
        stack.kill()
        wait_until(lambda: not any(is_alive(member) for member in members))


def _kill(log: Path, name: str) -> None:
    line = next(line for line in log.read_text().splitlines() if f"{name} started" in line)
    os.kill(int(line.rpartition("pid ")[2].rstrip(")")), signal.SIGKILL)

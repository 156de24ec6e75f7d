"""Two workers, real Valkey, real PostgreSQL, the real engine: one worker is killed half-way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen.settings import Settings
from batchgen_workers import testing
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.processes import (
    Processes,
    await_end,
    dataset_rows,
    half_done,
    processes,
    real_model,
)
from tests.support.workers import answer_of, is_alive, questions, submit_rows, wait_until

ROWS = 120
TTL = 2.0  # seconds


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = Store(Database(postgres_url))
    yield store
    store.close()


@pytest.fixture
def starter(home: Path, postgres_url: str, broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    settings = Settings(
        home=home,
        database_url=postgres_url,
        broker_url=broker_url,
        lease_ttl=TTL,
        checkpoint_interval=0.5,
        redispatch_after=2.0,
        heartbeat_interval=1.0,
        engine={"max_num_seqs": 4, "threads": 1, "kv_memory": "32M"},  # type: ignore[arg-type]
    )
    with processes(settings, tmp_path) as started:
        yield started


def test_a_killed_worker_costs_no_row_and_nobody_has_to_help(
    store: Store, home: Path, starter: Processes
) -> None:
    model = real_model(home)
    starter.coordinator()
    # half-way is where it sleeps, keeping its shard until it is killed
    workers = [starter.worker(failpoint="row.answered=pause:3600@10"), starter.worker()]
    wait_until(lambda: len(store.workers.list(alive_within=60.0)) == 2, within=120.0)
    rows = questions(ROWS, max_tokens=60, ignore_eos=True)
    job = submit_rows(store, home, model, rows, start=False)
    wait_until(half_done(store, job, rows=ROWS // 3))
    victim = workers[0]
    engines = victim.children()
    victim.kill()
    await_end(store, job)
    answers = dataset_rows(store, home, job)
    assert len(answers) == ROWS
    assert [row.custom_id for row in answers] == [f"q{row}" for row in range(ROWS)]
    assert {row.usage.completion_tokens for row in answers if row.usage} == {60}
    assert engines
    assert not any(is_alive(engine) for engine in engines)


def test_a_killed_coordinator_is_replaced_by_another(
    store: Store, home: Path, starter: Processes, hold: Hold
) -> None:
    model = pin_model(home)
    first = starter.coordinator()
    second = starter.coordinator()
    hold.after(20)
    starter.worker(testing.FAST)
    rows = questions(ROWS, max_tokens=20)
    job = submit_rows(store, home, model, rows, start=False)
    wait_until(half_done(store, job, rows=20))
    first.kill()
    hold.release()
    await_end(store, job)
    answers = dataset_rows(store, home, job)
    assert [row.choices[0].text for row in answers] == [
        answer_of(row, tokens=20) for row in range(ROWS)
    ]
    assert second.pid


def test_every_worker_and_the_coordinator_may_die(
    store: Store, home: Path, starter: Processes, hold: Hold
) -> None:
    model = pin_model(home)
    hold.after(20)
    dying = [starter.coordinator(), starter.worker(testing.FAST), starter.worker(testing.FAST)]
    job = submit_rows(store, home, model, questions(ROWS), start=False)
    shards = [shard.id for shard in store.jobs.shards(job.id)]
    wait_until(lambda: any(store.leases.checkpoint_of(shard) for shard in shards))
    for process in dying:
        process.kill()
    hold.release()
    starter.coordinator()
    starter.worker(testing.FAST)
    await_end(store, job)
    answers = dataset_rows(store, home, job)
    # what the dead had saved is not computed again
    assert {row.attempt for row in answers} >= {1, 2}

from __future__ import annotations

import pytest
from sqlalchemy import update

from batchgen.core.states import JobState
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, workers
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.jobs.records.statistics import NOT_ENDED
from batchgen.jobs.store import Store
from tests.support.jobs import MODEL, claim_first, new_job, running_job, set_job

ALIVE = 30.0  # seconds


def sign_on(store: Store, worker: str, *, slots: int, age: float, model: str = MODEL) -> None:
    """Store a worker whose last heartbeat was `age` seconds ago."""
    record = WorkerRecord(
        id=worker, model=model, slots=slots, device="cpu", pool_blocks=1, version="0", stats={}
    )
    store.workers.heartbeat(record)
    with store.database.begin() as connection:
        was = {"heartbeat_at": now_db() - age}
        connection.execute(update(workers).where(workers.c.id == worker).values(**was))


def age_job(store: Store, job_id: int, seconds: float) -> None:
    """Let a job have been submitted `seconds` ago."""
    with store.database.begin() as connection:
        was = {"created_at": now_db() - seconds}
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(**was))


def test_an_empty_store_has_nothing_to_show(store: Store) -> None:
    found = store.statistics.read(alive_within=ALIVE)
    assert (found.queues, found.workers) == ({}, {})
    assert found.jobs == {state.value: 0 for state in NOT_ENDED}


def test_a_queue_is_the_ready_shards_of_jobs_that_may_start(store: Store) -> None:
    first = running_job(store, 64)
    second = store.jobs.submit(new_job(96, model="other"))
    store.jobs.submit(new_job(32, not_before=4e9))  # much later
    paused = running_job(store, 32)
    store.jobs.pause(paused.id)
    claim_first(store, first)
    age_job(store, first.id, 100.0)
    found = store.statistics.read(alive_within=ALIVE)
    ready = {job.model: len(store.jobs.shards(job.id)) for job in (first, second)}
    assert {model: queue.shards for model, queue in found.queues.items()} == {
        MODEL: ready[MODEL] - 1,
        "other": ready["other"],
    }
    assert found.queues[MODEL].oldest_age == pytest.approx(100.0, abs=60.0)
    assert found.queues["other"].oldest_age < found.queues[MODEL].oldest_age
    assert (found.jobs[JobState.RUNNING], found.jobs[JobState.QUEUED]) == (3, 1)


@pytest.mark.parametrize(
    ("windows", "is_open"),
    [
        ([None], True),
        (["00:00-24:00 UTC"], True),
        (["00:00-00:01 Mars/Olympus"], False),  # a zone that this machine does not know
        (["00:00-00:01 Mars/Olympus", None], True),
    ],
)
def test_a_window_is_open_if_one_job_may_run(
    store: Store, windows: list[str | None], is_open: bool
) -> None:
    for window in windows:
        job = store.jobs.submit(new_job(32))
        set_job(store, job.id, window_spec=window)
    assert store.statistics.read(alive_within=ALIVE).queues[MODEL].is_open is is_open


def test_workers_are_those_that_were_heard_lately(store: Store) -> None:
    sign_on(store, "a", slots=4, age=1.0)
    sign_on(store, "b", slots=2, age=5000.0)
    sign_on(store, "c", slots=8, age=7000.0, model="dead")
    found = store.statistics.read(alive_within=ALIVE).workers
    assert (found[MODEL].alive, found[MODEL].slots) == (1, 4)
    assert (found["dead"].alive, found["dead"].slots) == (0, 0)
    assert found[MODEL].heartbeat_age < 5000.0 <= found["dead"].heartbeat_age

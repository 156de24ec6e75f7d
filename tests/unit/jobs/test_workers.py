from __future__ import annotations

from dataclasses import replace

from sqlalchemy import update

from batchgen.database.database import now_db
from batchgen.database.tables import workers
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.jobs.store import Store
from tests.support.jobs import database_now

ALIVE = 30.0  # seconds

WORKER = WorkerRecord(
    id="host/1",
    model="tiny",
    slots=4,
    device="cpu",
    pool_blocks=1024,
    version="0.1.0",
    stats={"running": 3},
)


def last_heard(store: Store, worker_id: str, *, seconds_ago: float) -> None:
    with store.database.begin() as connection:
        connection.execute(
            update(workers)
            .where(workers.c.id == worker_id)
            .values(heartbeat_at=now_db() - seconds_ago)
        )


def test_a_heartbeat_is_stored_at_the_database_s_time(store: Store) -> None:
    store.workers.heartbeat(WORKER)
    (found,) = store.workers.list(alive_within=ALIVE)
    assert replace(found, started_at=0.0, heartbeat_at=0.0) == WORKER
    assert abs(found.heartbeat_at - database_now(store.database)) < 30.0


def test_the_next_heartbeat_replaces_all_but_the_start(store: Store) -> None:
    store.workers.heartbeat(WORKER)
    (first,) = store.workers.list(alive_within=ALIVE)
    last_heard(store, WORKER.id, seconds_ago=10.0)
    store.workers.heartbeat(replace(WORKER, stats={"running": 5}, slots=2))
    (second,) = store.workers.list(alive_within=5.0)
    assert (second.stats, second.slots) == ({"running": 5}, 2)
    assert second.started_at == first.started_at


def test_the_silent_are_not_alive(store: Store) -> None:
    store.workers.heartbeat(WORKER)
    store.workers.heartbeat(replace(WORKER, id="host/2"))
    last_heard(store, "host/1", seconds_ago=ALIVE + 1.0)
    assert [worker.id for worker in store.workers.list(alive_within=ALIVE)] == ["host/2"]
    assert store.workers.slots(alive_within=ALIVE) == {"tiny": 4}


def test_slots_add_up_by_model(store: Store) -> None:
    assert store.workers.slots(alive_within=ALIVE) == {}
    store.workers.heartbeat(WORKER)
    store.workers.heartbeat(replace(WORKER, id="host/2", slots=2))
    store.workers.heartbeat(replace(WORKER, id="host/3", model="large", slots=1))
    assert store.workers.slots(alive_within=ALIVE) == {"tiny": 6, "large": 1}


def test_who_ends_well_is_forgotten(store: Store) -> None:
    store.workers.heartbeat(WORKER)
    store.workers.gone(WORKER.id)
    store.workers.gone(WORKER.id)
    assert store.workers.list(alive_within=ALIVE) == []

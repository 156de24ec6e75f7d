from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event

from batchgen.core.states import JobState, ShardState
from batchgen.database.database import Database
from batchgen.database.tables import TEXT_LIMIT, metadata, shard_is, storable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from tests.support.jobs import MODEL, OWNER, TTL, claim_first, part_of, running_job, shard

Call = Callable[[Store, JobRecord], object]

CALLS: dict[str, Call] = {
    "progress": lambda store, job: store.jobs.progress(job.id),
    "shards": lambda store, job: store.jobs.shards(job.id),
    "cancel": lambda store, job: store.jobs.cancel(job.id),
    "reap": lambda store, job: store.leases.reap(),
    "claim": lambda store, job: store.leases.claim(1, owner=OWNER, ttl=TTL),
    "commit": lambda store, job: (lambda lease: store.leases.commit(lease, part_of(lease)))(
        claim_first(store, job)
    ),
    "take": lambda store, job: store.dispatch.take(MODEL, limit=64, redispatch_after=30.0),
    "models": lambda store, job: store.dispatch.models_with_work(),
    "finalizable": lambda store, job: store.finalization.finalizable(),
    "segments": lambda store, job: store.finalization.segments(job.id),
}


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    with closing(Database(sqlite_url)) as database:
        yield Store(database)


def plans_of(store: Store, call: Call) -> list[str]:
    """Return how SQLite finds what a call asks for, a line for each table."""
    job = running_job(store, 320)
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in rows)

    event.listen(store.database.engine, "before_cursor_execute", explain)
    call(store, job)
    return plans


@pytest.mark.parametrize("name", CALLS)
def test_shards_and_parts_are_found_by_index(sqlite_store: Store, name: str) -> None:
    """With ten thousand shards, a scan in any of these would be felt at every tick."""
    plans = plans_of(sqlite_store, CALLS[name])
    assert any("shards" in plan for plan in plans)
    assert [plan for plan in plans if plan.startswith(("SCAN shards", "SCAN parts"))] == []


def test_progress_looks_at_shards_in_work_alone(sqlite_store: Store) -> None:
    plans = plans_of(sqlite_store, lambda store, job: store.jobs.progress(job.id))
    assert {plan for plan in plans if "shards" in plan} == {
        "SEARCH shards USING INDEX shard_begun (job_id=?)",
        "SEARCH shards USING INDEX shard_due (job_id=? AND state=?)",
    }
    assert [plan for plan in plans if "parts" in plan] == []


def test_a_state_stands_in_the_sql_as_it_is() -> None:
    assert "'leased'" in str(shard_is(ShardState.LEASED))


def test_every_constraint_has_a_name() -> None:
    unnamed = [
        (table.name, constraint)
        for table in metadata.sorted_tables
        for constraint in table.constraints
        if constraint.name is None
    ]
    assert unnamed == []


@pytest.mark.parametrize(
    ("words", "stored"),
    [
        ("no space left", "no space left"),
        ("a\0b", "a b"),
        ("half a \ud83d", "half a ?"),
        ("ü€😀", "ü€😀"),
        ("x" * (TEXT_LIMIT + 1), "x" * TEXT_LIMIT),
    ],
)
def test_words_become_storable(words: str, stored: str) -> None:
    assert storable(words) == stored


def test_any_words_of_an_exception_can_be_reported(store: Store) -> None:
    job = running_job(store)
    lease = claim_first(store, job)
    store.leases.release(lease, error="\0\ud83d")
    assert shard(store, lease.shard_id).last_error == " ?"
    assert store.jobs.fail(job.id, "\0\ud83d").state is JobState.FAILED

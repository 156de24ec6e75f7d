from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event, update

from batchgen.core.row_lengths import RowLengths
from batchgen.core.states import JobState
from batchgen.database.database import Database
from batchgen.database.tables import jobs
from batchgen.errors import JobNotFound
from batchgen.jobs.store import Store
from tests.support.jobs import MODEL, new_job, set_job

IDS = (
    "0193aa00000000000000000000000001",
    "0193aaffffffffffffffffffffffff02",
    "0193ab00000000000000000000000f02",
)


def add(store: Store, public_id: str, **fields: Any) -> int:
    return store.jobs.submit(new_job(1, public_id=public_id, **fields)).id


@pytest.mark.parametrize(
    ("ref", "number"),
    [("0193aa0", 0), ("0193aaf", 1), ("0193aaff", 1), ("0193ab", 2), ("0001", 0), ("ff02", 1)],
)
def test_a_beginning_or_an_end_names_one_job(store: Store, ref: str, number: int) -> None:
    ids = [add(store, public_id) for public_id in IDS]
    assert store.jobs.get(ref).id == ids[number]


@pytest.mark.parametrize("ref", ["0193", "0193aa", "0f02f", "ffff"])
def test_an_ambiguous_or_unknown_one_names_none(store: Store, ref: str) -> None:
    for public_id in IDS:
        add(store, public_id)
    with pytest.raises(JobNotFound):
        store.jobs.get(ref)


def test_a_beginning_that_is_another_s_end_is_ambiguous(store: Store) -> None:
    add(store, "abcd0000000000000000000000000000")
    add(store, "0000000000000000000000000000abcd")
    with pytest.raises(JobNotFound, match="more than one"):
        store.jobs.get("abcd")


def test_beginning_and_end_of_the_same_job_are_not_ambiguous(store: Store) -> None:
    job = add(store, "abcd000000000000000000000000abcd")
    assert store.jobs.get("abcd").id == job


def test_the_jobs_of_others_make_nothing_ambiguous(store: Store) -> None:
    mine = add(store, IDS[0])
    add(store, IDS[1], tenant_id="acme", name="nightly")
    assert store.jobs.get("0193aa").id == mine
    assert not store.jobs.named("nightly") and not store.jobs.newest_names()
    assert len(store.jobs.named("nightly", tenant="acme")) == 1


def test_a_model_is_needed_until_its_last_job_ends(store: Store) -> None:
    mine, theirs = add(store, IDS[0]), add(store, IDS[1], tenant_id="acme")
    ended = {"state": JobState.FAILED, "ended_at": 1.0}
    set_job(store, mine, **ended)
    needing = store.jobs.needing_model(MODEL)
    assert needing is not None and needing.id == theirs
    set_job(store, theirs, **ended)
    assert store.jobs.needing_model(MODEL) is None


LOOKS: dict[str, Callable[[Store], object]] = {
    "id": lambda store: store.jobs.get(IDS[0]),
    "beginning": lambda store: store.jobs.get(IDS[0][:8]),
    "end": lambda store: store.jobs.get(IDS[0][-8:]),
    "name": lambda store: store.jobs.named("nightly", limit=1),
    "hints": lambda store: store.jobs.newest_names(),
    "list": lambda store: store.jobs.list(),
    "list of a state": lambda store: store.jobs.list(states=[JobState.RUNNING]),
    "model": lambda store: store.jobs.needing_model(MODEL),
    "list of the next jobs": lambda store: store.jobs.list(states=[JobState.QUEUED], before_id=9),
    "progress of several": lambda store: store.jobs.progress_of([1, 2]),
    "submit": lambda store: store.jobs.submit(new_job(1, lengths=RowLengths())),
    "start": lambda store: store.dispatch.start_due(),
    "expire": lambda store: store.dispatch.expire_due(),
    "take": lambda store: store.dispatch.take(MODEL, limit=64, redispatch_after=30.0),
    "finalizable": lambda store: store.finalization.finalizable(),
}


#: The few workers, newest totals and jobs to finalize are sorted, and no others.
_SORT = "USE TEMP B-TREE FOR ORDER BY"
SORTED = {"submit": [_SORT] * 2, "finalizable": [_SORT]}


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    with closing(Database(sqlite_url)) as database:
        yield Store(database)


@pytest.mark.parametrize("look", LOOKS)
def test_jobs_are_found_by_index(sqlite_store: Store, look: str) -> None:
    """With a hundred thousand jobs, a scan or a sort in any of these would be felt."""
    add(sqlite_store, IDS[0], name="nightly")
    with sqlite_store.database.begin() as connection:
        connection.execute(update(jobs).values(started_at=1.0))
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in rows)

    event.listen(sqlite_store.database.engine, "before_cursor_execute", explain)
    LOOKS[look](sqlite_store)
    assert any("jobs" in plan for plan in plans)
    assert [plan for plan in plans if plan.startswith("SCAN jobs")] == []
    # it holds ended jobs too; only a submit looks at a few of them
    assert look == "submit" or not any("job_of_model" in plan for plan in plans)
    assert [plan for plan in plans if "ORDER BY" in plan] == SORTED.get(look, [])

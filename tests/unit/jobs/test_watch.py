"""The triggers of the fault tests: nothing of this can be seen in the tables afterwards."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from batchgen.core.states import JobState
from batchgen.database.database import Database, now_db
from batchgen.database.tables import parts
from batchgen.jobs.store import Store
from tests.support.jobs import claim_first, commit_all, running_job, set_job, set_shard
from tests.support.watch import seen, watch


@pytest.fixture(params=["sqlite", "postgresql"])
def watched(request: pytest.FixtureRequest) -> Store:
    """A store on a database of its own."""
    names = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    store = Store(Database(request.getfixturevalue(names[request.param])))
    request.addfinalizer(store.close)
    watch(store.database)
    watch(store.database)
    return store


def test_work_as_it_should_be_is_not_noted(watched: Store) -> None:
    job = running_job(watched)
    commit_all(watched, job)
    assert watched.finalization.finalizable() == [job.id]
    assert seen(watched.database) == []


@pytest.mark.parametrize("column", ["epoch", "attempts"])
def test_a_number_that_falls_and_rises_again_is_noted(watched: Store, column: str) -> None:
    lease = claim_first(watched, running_job(watched))
    for value in (0, 1):
        set_shard(watched, lease.shard_id, **{column: value})
    assert seen(watched.database) == [f"I9: epoch or attempts of shard {lease.shard_id}"]


def test_a_part_that_comes_late_is_noted(watched: Store) -> None:
    job = running_job(watched, 10)
    (shard,) = watched.jobs.shards(job.id)
    set_job(watched, job.id, state=JobState.FINALIZING)
    with watched.database.begin() as connection:
        connection.execute(
            insert(parts).values(
                shard_id=shard.id,
                job_id=job.id,
                epoch=1,
                path="late",
                n_rows=10,
                n_ok=10,
                n_err=0,
                bytes=1,
                sha256="",
                committed_at=now_db(),
            )
        )
    set_job(watched, job.id, state=JobState.RUNNING)
    assert seen(watched.database) == [f"I10: late part of shard {shard.id}"]


def test_nobody_watches_unasked(store: Store) -> None:
    assert seen(store.database) == []

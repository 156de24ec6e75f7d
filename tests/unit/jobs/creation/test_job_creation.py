from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.errors import InvalidParameter, NotAllowed
from batchgen.jobs.creation.sharding import plan_shards
from batchgen.jobs.store import Store
from tests.support.jobs import database_now, new_job, states_of


def test_stores_the_job_as_asked(store: Store) -> None:
    new = new_job(
        100,
        name="evening run",
        params={"temperature": 0.0, "stop": ["a", "ü"]},
        priority=3,
        not_before=5.0,
        deadline=database_now(store.database) + 60.0,
        window="9:00-17:00 UTC",
    )
    job = store.jobs.submit(new)
    assert (job.state, job.paused, job.n_rows, job.n_positions) == (
        JobState.QUEUED,
        False,
        100,
        100,
    )
    assert (job.name, job.priority, job.params) == ("evening run", 3, dict(new.params))
    assert (job.not_before, job.deadline) == (5.0, new.deadline)
    assert job.window_spec == "09:00-17:00 UTC"
    assert abs(job.created_at - database_now(store.database)) < 30.0
    assert len(job.public_id) == 32
    assert int(job.public_id, 16)
    assert store.jobs.by_id(job.id) == job


def test_shards_tile_the_input_and_are_ready(store: Store) -> None:
    job = store.jobs.submit(new_job(1000))
    position = 0
    for record in store.jobs.shards(job.id):
        assert record.pos_start == position
        assert (record.state, record.epoch, record.attempts) == (ShardState.READY, 0, 0)
        position = record.pos_end
    assert position == 1000
    assert store.jobs.shards(job.id)[0].n_rows == plan_shards(1000)


def test_one_input_serves_many_jobs(store: Store) -> None:
    new = new_job()
    first, second = store.jobs.submit(new), store.jobs.submit(new)
    assert first.public_id != second.public_id
    assert first.input_sha256 == second.input_sha256


class TestIdempotencyKey:
    def test_the_same_work_is_the_same_job(self, store: Store) -> None:
        new = new_job(idem_key="nightly", params={"top_p": 0.5, "n": 1})
        job = store.jobs.submit(new)
        again = store.jobs.submit(replace(new, params={"n": 1, "top_p": 0.5}))
        assert again == job
        assert len(store.jobs.list()) == 1

    def test_moments_may_differ(self, store: Store) -> None:
        new = new_job(idem_key="nightly", deadline=database_now(store.database) + 60.0)
        job = store.jobs.submit(new)
        # said again once the deadline has passed
        assert store.jobs.submit(replace(new, not_before=1.0, deadline=2.0)).id == job.id

    @pytest.mark.parametrize(
        "other",
        [
            {"input_sha256": "f" * 64},
            {"model": "other"},
            {"model_sha256": "1" * 64},
            {"params": {"n": 2}},
            {"name": "other"},
            {"priority": 1},
            {"window": "22:00-06:00 UTC"},
        ],
    )
    def test_other_work_is_refused(self, store: Store, other: dict[str, Any]) -> None:
        new = new_job(idem_key="nightly")
        job = store.jobs.submit(new)
        with pytest.raises(NotAllowed, match=job.public_id):
            store.jobs.submit(replace(new, **other))
        assert len(store.jobs.list()) == 1

    def test_another_tenant_s_key_is_another_key(self, store: Store) -> None:
        new = new_job(idem_key="nightly")
        job = store.jobs.submit(new)
        assert store.jobs.submit(replace(new, tenant_id="other")).id != job.id

    def test_many_at_once_are_one_job(self, store: Store) -> None:
        new = new_job(idem_key="nightly")
        with ThreadPoolExecutor(8) as threads:
            ids = {job.id for job in threads.map(store.jobs.submit, [new] * 24)}
        assert len(ids) == 1
        assert len(store.jobs.list()) == 1

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_unknown_outcome_is_one_job(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        broken = break_commit(moment)
        job = store.jobs.submit(new_job())
        assert broken == [moment]
        assert [found.id for found in store.jobs.list()] == [job.id]
        assert set(states_of(store, job)) == {ShardState.READY}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"window": "sometimes"}, "window"),
        ({"deadline": 1.0}, "deadline"),
        ({"not_before": 3e9, "deadline": 2.9e9}, "deadline"),
        ({"priority": 10**9}, "priority"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "publisher\a"}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"name": "half a \ud83d"}, "name"),
        ({"idem_key": "two\nlines"}, "idempotency_key"),
    ],
)
def test_refuses_what_cannot_be_meant(store: Store, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        store.jobs.submit(new_job(**fields))
    assert caught.value.param == param
    assert store.jobs.list() == []


def test_the_largest_job_is_one_transaction(store: Store) -> None:
    job = store.jobs.submit(new_job(5_000_000))
    shards = store.jobs.shards(job.id)
    assert len(shards) == 5000
    assert sum(record.n_rows for record in shards) == 5_000_000

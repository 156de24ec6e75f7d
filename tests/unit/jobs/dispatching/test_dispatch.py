from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from batchgen.core.states import JobState, ShardState, StopReason
from batchgen.database.database import now_db
from batchgen.jobs.dispatching.dispatch import JOBS_AT_ONCE
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from tests.support.jobs import (
    MODEL,
    claim_first,
    database_now,
    new_job,
    part_of,
    running_job,
    set_job,
    set_shard,
    shard,
    state_of,
    states_of,
    window_around,
)

AFTER = 30.0  # seconds


def take(store: Store, limit: int = 100, model: str = MODEL) -> list[int]:
    return store.dispatch.take(model, limit=limit, redispatch_after=AFTER)


def by_job(store: Store, shard_ids: Sequence[int]) -> Counter[int]:
    return Counter(shard(store, shard_id).job_id for shard_id in shard_ids)


class TestStartDue:
    def test_starts_what_is_due(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        assert store.dispatch.start_due() == 1
        started = store.jobs.by_id(job.id)
        assert started.state is JobState.RUNNING
        assert started.started_at is not None
        assert store.dispatch.start_due() == 0

    def test_waits_for_not_before(self, store: Store) -> None:
        job = store.jobs.submit(new_job(not_before=database_now(store.database) + 60.0))
        assert store.dispatch.start_due() == 0
        set_job(store, job.id, not_before=now_db() - 1.0)
        assert store.dispatch.start_due() == 1

    def test_waits_for_the_window(self, store: Store) -> None:
        now = database_now(store.database)
        job = store.jobs.submit(new_job(window=window_around(now, opens=3600, closes=7200)))
        assert store.dispatch.start_due() == 0
        set_job(store, job.id, window_spec=window_around(now, opens=-3600, closes=3600))
        assert store.dispatch.start_due() == 1

    def test_leaves_paused_jobs_queued(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        store.jobs.pause(job.id)
        assert store.dispatch.start_due() == 0
        assert state_of(store, job) is JobState.QUEUED


class TestExpireDue:
    @pytest.mark.parametrize("start", [True, False])
    def test_stops_what_is_late(self, store: Store, start: bool) -> None:
        deadline = database_now(store.database) + 60.0
        job = store.jobs.submit(new_job(deadline=deadline))
        if start:
            store.dispatch.start_due()
        assert store.dispatch.expire_due() == 0
        set_job(store, job.id, deadline=now_db() - 1.0)
        assert store.dispatch.expire_due() == 1
        expired = store.jobs.by_id(job.id)
        assert (expired.state, expired.stop_reason) == (JobState.STOPPING, StopReason.EXPIRE)
        assert set(states_of(store, job)) == {ShardState.STOPPED}
        assert store.dispatch.expire_due() == 0

    def test_even_where_it_is_paused(self, store: Store) -> None:
        job = running_job(store)
        store.jobs.pause(job.id)
        set_job(store, job.id, deadline=now_db() - 1.0)
        assert store.dispatch.expire_due() == 1


class TestModelsWithWork:
    def test_names_the_models_of_ready_shards(self, store: Store) -> None:
        running_job(store, model="a")
        running_job(store, model="a")
        paused = running_job(store, model="b")
        store.jobs.pause(paused.id)
        done = running_job(store, 1, model="c")
        lease = claim_first(store, done)
        store.leases.commit(lease, part_of(lease))
        store.jobs.submit(new_job(model="d"))
        assert store.dispatch.models_with_work() == ["a"]


class TestTake:
    def test_gives_shards_in_input_order_once(self, store: Store) -> None:
        job = running_job(store, 100)
        assert take(store) == [record.id for record in store.jobs.shards(job.id)]
        assert take(store) == []

    def test_is_for_one_model(self, store: Store) -> None:
        running_job(store, model="other")
        assert take(store) == []
        assert len(take(store, model="other")) == 4

    def test_bounds_what_is_outstanding(self, store: Store) -> None:
        job = running_job(store, 320)
        assert len(take(store, limit=3)) == 3
        assert take(store, limit=3) == []
        lease = claim_first(store, job)
        # a claimed shard is no longer outstanding
        assert len(take(store, limit=3)) == 1
        store.leases.commit(lease, part_of(lease))
        assert take(store, limit=3) == []

    def test_rings_again_when_nobody_came(self, store: Store) -> None:
        running_job(store, 64)
        first, second = take(store)
        set_shard(store, first, enqueued_at=now_db() - AFTER - 1.0)
        assert take(store) == [first]
        set_shard(store, second, enqueued_at=now_db() - AFTER + 5.0)
        assert take(store) == []

    def test_rings_at_once_for_what_was_released_or_reaped(self, store: Store) -> None:
        job = running_job(store, 64)
        take(store)
        released, lost = claim_first(store, job), claim_first(store, job)
        store.leases.release(released)
        assert take(store) == [released.shard_id]
        set_shard(store, lost.shard_id, lease_expires_at=now_db() - 1.0)
        store.leases.reap()
        assert take(store) == [lost.shard_id]

    def test_unmark_makes_it_ring_again(self, store: Store) -> None:
        running_job(store, 64)
        taken = take(store)
        store.dispatch.unmark(taken[:1])
        assert take(store) == taken[:1]
        store.dispatch.unmark([])

    def test_passes_over_jobs_that_do_not_run_now(self, store: Store) -> None:
        now = database_now(store.database)
        store.jobs.pause(running_job(store).id)
        closed = running_job(store)
        set_job(store, closed.id, window_spec=window_around(now, opens=3600, closes=7200))
        store.jobs.cancel(running_job(store).id)
        opened = running_job(store, 1, window=window_around(now, opens=-3600, closes=3600))
        store.jobs.submit(new_job())
        assert set(by_job(store, take(store))) == {opened.id}

    def test_passes_over_shards_that_are_not_due(self, store: Store) -> None:
        first, second = store.jobs.shards(running_job(store, 64).id)
        set_shard(store, first.id, not_before=now_db() + 60.0)
        assert take(store) == [second.id]

    def test_higher_priority_first(self, store: Store) -> None:
        low, high = running_job(store, 64, priority=-1), running_job(store, 64, priority=7)
        middle = running_job(store, 64)
        order = [shard(store, shard_id).job_id for shard_id in take(store)]
        assert order == [high.id] * 2 + [middle.id] * 2 + [low.id] * 2

    def test_then_the_nearest_deadline(self, store: Store) -> None:
        now = database_now(store.database)
        never = running_job(store, 32)
        late = running_job(store, 32, deadline=now + 7200.0)
        soon = running_job(store, 32, deadline=now + 3600.0)
        order = [shard(store, shard_id).job_id for shard_id in take(store)]
        assert order == [soon.id, late.id, never.id]

    def test_then_by_turns(self, store: Store) -> None:
        large, small = running_job(store, 320), running_job(store, 64)
        assert by_job(store, take(store, limit=4)) == {large.id: 2, small.id: 2}

    def test_counts_what_a_job_already_has_in_flight(self, store: Store) -> None:
        first, second = running_job(store, 320), running_job(store, 320)
        for _ in range(3):
            claim_first(store, first)
        assert by_job(store, take(store, limit=5)) == {first.id: 1, second.id: 4}

    def test_one_place_at_a_time_starves_nobody(self, store: Store) -> None:
        jobs = [running_job(store, 320) for _ in range(3)]
        served: list[int] = []
        for _ in range(9):
            (published,) = take(store, limit=1)
            served.append(published)
            assert store.leases.claim(published, owner="w", ttl=60.0) is not None
        assert by_job(store, served) == {job.id: 3 for job in jobs}

    def test_of_many_small_jobs_at_once(self, store: Store) -> None:
        jobs: list[JobRecord] = [running_job(store, 1) for _ in range(12)]
        taken = take(store, limit=10)
        assert len(taken) == 10
        assert set(by_job(store, taken)) <= {job.id for job in jobs}


class TestFairness:
    """A job of a million rows, and twenty of ten."""

    WINDOW = 16  # messages for a worker of four slots
    BACKLOG = 1_000  # shards

    def submitted(self, store: Store, tenants: Sequence[str]) -> tuple[JobRecord, list[int]]:
        """Return the huge job, submitted first by `a`, and the ids of twenty small ones."""
        huge = store.jobs.submit(new_job(1_000_000, tenant_id="a"))
        small = [
            store.jobs.submit(new_job(10, tenant_id=tenants[number % len(tenants)])).id
            for number in range(20)
        ]
        store.dispatch.start_due()
        assert len(store.jobs.shards(huge.id)) == self.BACKLOG
        return huge, small

    def window(self, store: Store) -> list[int]:
        """Publish a window of shards, have them all claimed, and return their jobs."""
        published = take(store, self.WINDOW)
        for shard_id in published:
            assert store.leases.claim(shard_id, owner="w", ttl=60.0) is not None
        return [shard(store, shard_id).job_id for shard_id in published]

    def test_small_jobs_of_the_same_tenant_do_not_wait_for_a_huge_one(self, store: Store) -> None:
        huge, small = self.submitted(store, ["a"])
        served = self.window(store) + self.window(store)
        assert Counter(served) == {**dict.fromkeys(small, 1), huge.id: 12}

    def test_nor_do_those_of_another(self, store: Store) -> None:
        huge, small = self.submitted(store, ["b"])
        first, second = self.window(store), self.window(store)
        # by halves, although one has twenty jobs
        assert first.count(huge.id) == second.count(huge.id) == 8
        assert set(first + second) == {huge.id, *small[:16]}
        assert set(small[16:]) <= set(self.window(store))

    def test_two_tenants_with_work_to_do_share_evenly(self, store: Store) -> None:
        huge = store.jobs.submit(new_job(1_000_000, tenant_id="a"))
        many = [store.jobs.submit(new_job(320, tenant_id="b")).id for _ in range(5)]
        store.dispatch.start_due()
        served = Counter(job for _ in range(3) for job in self.window(store))
        assert served[huge.id] == 24
        assert sorted(served[job] for job in many) == [4, 5, 5, 5, 5]

    def test_priority_and_deadline_come_before_fairness(self, store: Store) -> None:
        huge, _ = self.submitted(store, ["b"])
        set_job(store, huge.id, priority=1)
        assert set(self.window(store)) == {huge.id}
        set_job(store, huge.id, priority=0, deadline=database_now(store.database) + 3600.0)
        assert set(self.window(store)) == {huge.id}


def test_more_jobs_than_one_statement_asks_for(store: Store) -> None:
    jobs = [running_job(store, 1) for _ in range(JOBS_AT_ONCE + 5)]
    assert by_job(store, take(store, JOBS_AT_ONCE + 10)) == {job.id: 1 for job in jobs}


def test_a_row_that_another_dispatcher_holds_is_skipped(emptied_postgres_store: Store) -> None:
    store = emptied_postgres_store
    running_job(store, 64)
    with store.database.begin() as connection:
        held = connection.exec_driver_sql(
            "SELECT id FROM shards ORDER BY pos_start LIMIT 1 FOR UPDATE"
        ).scalar_one()
        taken = take(store)
        assert len(taken) == 1
        assert held not in taken

from __future__ import annotations

from batchgen.core.states import ShardState
from batchgen.jobs.dead_leases import release_dead_leases
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.jobs.store import Store
from tests.support.jobs import claim_first, commit_all, running_job, shard, states_of


def test_leases_of_the_dead_come_back_at_once(store: Store) -> None:
    job = running_job(store, 40)
    lease = claim_first(store, job)
    assert release_dead_leases(store) == 1
    assert states_of(store, job) == [ShardState.READY, ShardState.READY]
    assert shard(store, lease.shard_id).lost == 1
    assert store.leases.claim(lease.shard_id, owner="new/1", ttl=60.0) is not None


def test_a_dataset_in_progress_can_be_taken_over(store: Store) -> None:
    job = running_job(store, 10)
    commit_all(store, job)
    assert store.finalization.finalizable() == [job.id]
    assert store.finalization.claim(job.id, owner="dead/1", ttl=60.0) is not None
    assert store.finalization.finalizable() == []
    release_dead_leases(store)
    assert store.finalization.finalizable() == [job.id]


def test_shards_are_rung_for_again_and_dead_workers_forgotten(store: Store) -> None:
    running_job(store, 40)
    store.workers.heartbeat(
        WorkerRecord(
            id="dead/1", model="tiny", slots=4, device="cpu", pool_blocks=1, version="0", stats={}
        )
    )
    published = store.dispatch.take("tiny", limit=10, redispatch_after=30.0)
    release_dead_leases(store)
    assert store.dispatch.take("tiny", limit=10, redispatch_after=30.0) == published
    assert store.workers.list(alive_within=60.0) == []


def test_nothing_that_is_final_changes(store: Store) -> None:
    job = running_job(store, 40)
    commit_all(store, job)
    assert release_dead_leases(store) == 0
    assert set(states_of(store, job)) == {ShardState.COMMITTED}

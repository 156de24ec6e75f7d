"""A clock that is set back: what it wrote before lies ahead of it, and is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.database.clock import LONGEST_DELAY
from batchgen.jobs.store import Store
from batchgen.repair.garbage import Collector
from batchgen.repair.invariants import check_tables
from batchgen.storage.storage import LocalStorage
from tests.support.jobs import (
    MODEL,
    OWNER,
    TTL,
    claim_first,
    commit_all,
    database_now,
    let_expire,
    move_clock,
    part_of,
    running_job,
    shard,
    state_of,
)
from tests.support.views import a_worker

HOUR = 3600.0  # seconds


def publish(store: Store) -> list[int]:
    return store.dispatch.take(MODEL, limit=100, redispatch_after=30.0)


def test_a_message_of_the_lost_time_is_published_again_at_once(store: Store) -> None:
    running_job(store)
    published = publish(store)
    assert published and publish(store) == []
    move_clock(store, -HOUR)
    assert publish(store) == published
    assert publish(store) == []  # that one was of now


def test_a_dead_workers_lease_of_the_lost_time_ends_a_lease_from_now(store: Store) -> None:
    job = running_job(store)
    lease = claim_first(store, job)
    move_clock(store, -HOUR)
    assert store.leases.reap() == 0
    expires_at = shard(store, lease.shard_id).lease_expires_at
    assert expires_at == pytest.approx(database_now(store.database) + TTL, abs=TTL / 2)
    let_expire(store, lease)
    assert store.leases.reap() == 1


def test_a_live_worker_keeps_its_lease_over_a_step_back(store: Store) -> None:
    lease = claim_first(store, running_job(store))
    move_clock(store, -HOUR)
    store.leases.reap()
    store.leases.renew(lease, rows_done=1, ttl=TTL)
    store.leases.commit(lease, part_of(lease))
    assert shard(store, lease.shard_id).state is ShardState.COMMITTED


def test_a_lease_longer_than_others_is_its_owners_own_choice(store: Store) -> None:
    job = running_job(store)
    (first, *_) = store.jobs.shards(job.id)
    assert store.leases.claim(first.id, owner=OWNER, ttl=2 * HOUR) is not None
    before = shard(store, first.id).lease_expires_at
    store.leases.reap()
    assert shard(store, first.id).lease_expires_at == before
    lease = store.leases.claim(store.jobs.shards(job.id)[1].id, owner=OWNER, ttl=TTL)
    assert lease is not None
    lease = store.splits.split(lease, cut=lease.pos_start + 1, ttl=2 * HOUR)
    before = shard(store, lease.shard_id).lease_expires_at
    store.leases.reap()
    assert shard(store, lease.shard_id).lease_expires_at == before


def test_a_shard_kept_back_in_the_lost_time_is_kept_back_no_longer(store: Store) -> None:
    job = running_job(store, n_rows=10)
    lease = claim_first(store, job)
    store.leases.release(lease, delay=LONGEST_DELAY)
    assert publish(store) == []
    move_clock(store, -HOUR)
    assert publish(store) == [lease.shard_id]
    assert store.leases.claim(lease.shard_id, owner=OWNER, ttl=TTL) is not None


def test_a_job_that_is_to_wait_waits_however_far_ahead(store: Store) -> None:
    job = running_job(store, not_before=database_now(store.database) + 100 * HOUR)
    move_clock(store, -HOUR)
    store.dispatch.start_due()
    assert state_of(store, job) is JobState.QUEUED


def test_a_final_lease_of_the_lost_time_ends_a_lease_from_now(store: Store) -> None:
    job = running_job(store)
    commit_all(store, job)
    store.finalization.finalizable()
    assert store.finalization.claim(job.id, owner=OWNER, ttl=TTL) is not None
    move_clock(store, -HOUR)
    store.finalization.finalizable()
    move_clock(store, TTL + 2.0)
    assert store.finalization.finalizable() == [job.id]


def test_a_worker_of_the_lost_time_is_not_there(store: Store) -> None:
    store.workers.heartbeat(a_worker())
    move_clock(store, -HOUR)
    assert store.workers.list(alive_within=30.0) == []
    assert store.workers.slots(alive_within=30.0) == {}
    store.workers.heartbeat(a_worker())
    assert len(store.workers.list(alive_within=30.0)) == 1


@pytest.mark.parametrize("end", ["finalise", "fail"])
def test_parts_of_the_lost_time_are_no_newer_than_their_jobs_end(store: Store, end: str) -> None:
    job = running_job(store)
    commit_all(store, job)
    move_clock(store, -HOUR)
    if end == "fail":
        store.jobs.fail(job.id, "for a reason")
    else:
        store.finalization.finalizable()
    assert [violation for violation in check_tables(store) if violation.invariant == "I10"] == []


def test_a_file_of_the_lost_time_ages_from_now_on(store: Store, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    upload = inputs / ".x.tmp"
    upload.write_bytes(b"half of a prompt")
    ahead = upload.stat().st_mtime + 100 * HOUR
    os.utime(upload, (ahead, ahead))
    assert list(Collector(store, LocalStorage(tmp_path), min_age=HOUR).collect()) == []
    assert upload.stat().st_mtime < ahead - HOUR
    (gone,) = Collector(store, LocalStorage(tmp_path), min_age=0.0).collect()
    assert gone.key == "inputs/.x.tmp"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import delete

from batchgen.core.kv_totals import UNMEASURED
from batchgen.core.states import JobState, ShardState
from batchgen.database.database import now_db
from batchgen.database.tables import parts, shards
from batchgen.errors import Corrupt, Fenced
from batchgen.jobs.records.job_records import FinalLease, JobRecord
from batchgen.jobs.store import Store
from tests.support.jobs import (
    OWNER,
    TTL,
    claim_first,
    commit_all,
    let_expire,
    new_job,
    part_of,
    running_job,
    set_job,
    set_shard,
    state_of,
)

MANIFEST = "a" * 64


def claim(store: Store, job: JobRecord) -> FinalLease | None:
    return store.finalization.claim(job.id, owner=OWNER, ttl=TTL)


def finalizing_job(store: Store) -> JobRecord:
    job = running_job(store)
    commit_all(store, job)
    assert store.finalization.finalizable() == [job.id]
    return store.jobs.by_id(job.id)


def claimed(store: Store, job: JobRecord) -> FinalLease:
    final = claim(store, job)
    assert final is not None
    return final


def complete(store: Store, final: FinalLease, manifest_sha256: str = MANIFEST) -> JobRecord:
    path = f"datasets/{final.job.public_id}/e{final.epoch}"
    return store.finalization.complete(final, dataset_path=path, manifest_sha256=manifest_sha256)


class TestFinalizable:
    def test_waits_for_the_last_shard(self, store: Store) -> None:
        job = running_job(store, 64)
        first, last = claim_first(store, job), claim_first(store, job)
        store.leases.commit(first, part_of(first))
        assert store.finalization.finalizable() == []
        store.leases.commit(last, part_of(last))
        assert store.finalization.finalizable() == [job.id]
        settled = store.jobs.by_id(job.id)
        assert settled.state is JobState.FINALIZING
        assert settled.finalizing_at is not None

    def test_a_released_shard_keeps_the_job_running(self, store: Store) -> None:
        job = running_job(store, 1)
        store.leases.release(claim_first(store, job))
        assert store.finalization.finalizable() == []

    def test_of_a_job_paused_at_its_end(self, store: Store) -> None:
        job = running_job(store)
        commit_all(store, job)
        store.jobs.pause(job.id)
        assert store.finalization.finalizable() == [job.id]

    def test_leaves_out_what_a_finaliser_holds(self, store: Store) -> None:
        job = finalizing_job(store)
        claimed(store, job)
        assert store.finalization.finalizable() == []
        set_job(store, job.id, final_expires_at=now_db() - 1.0)
        assert store.finalization.finalizable() == [job.id]

    def test_a_queued_job_is_none(self, store: Store) -> None:
        store.jobs.submit(new_job())
        assert store.finalization.finalizable() == []


class TestClaim:
    def test_has_an_epoch_of_its_own(self, store: Store) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        assert (final.epoch, final.job.public_id) == (1, job.public_id)
        assert final.owner.startswith(OWNER + "/")
        assert claim(store, job) is None

    def test_takes_over_an_expired_lease_and_fences_it(self, store: Store) -> None:
        job = finalizing_job(store)
        former = claimed(store, job)
        set_job(store, job.id, final_expires_at=now_db() - 1.0)
        final = claimed(store, job)
        assert final.epoch == 2
        with pytest.raises(Fenced):
            store.finalization.renew(former, ttl=TTL)
        with pytest.raises(Fenced):
            store.finalization.release(former)
        with pytest.raises(Fenced):
            complete(store, former)
        assert complete(store, final).state is JobState.COMPLETED
        with pytest.raises(Fenced):
            complete(store, former, "b" * 64)

    @pytest.mark.parametrize("state", [JobState.RUNNING, JobState.CANCELLED])
    def test_needs_a_finalizing_job(self, store: Store, state: JobState) -> None:
        job = finalizing_job(store)
        set_job(store, job.id, state=state)
        assert claim(store, job) is None


class TestRenewAndRelease:
    def test_renewing_extends(self, store: Store) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        set_job(store, job.id, final_expires_at=now_db() - 1.0)
        store.finalization.renew(final, ttl=TTL)
        assert claim(store, job) is None

    def test_releasing_frees_it_and_notes_why(self, store: Store) -> None:
        job = finalizing_job(store)
        store.finalization.release(claimed(store, job), error="no space left")
        assert store.jobs.by_id(job.id).error == "no space left"
        final = claimed(store, job)
        assert final.epoch == 2
        assert complete(store, final).error is None


class TestSegments:
    def test_say_what_each_part_did_to_the_pool(self, store: Store) -> None:
        job = running_job(store, 64)
        measured, unmeasured = claim_first(store, job), claim_first(store, job)
        part = part_of(measured, n_err=2)
        store.leases.commit(measured, part)
        store.leases.commit(unmeasured, replace(part_of(unmeasured), kv=UNMEASURED))
        found = [segment.part for segment in store.finalization.segments(job.id)]
        assert [part and part.kv for part in found] == [part.kv, UNMEASURED]
        assert found[0] is not None
        assert (part.kv.rows, found[0].cached_tokens) == (30, part.cached_tokens)

    def test_are_in_input_order_with_their_parts(self, store: Store) -> None:
        job = finalizing_job(store)
        segments = store.finalization.segments(job.id)
        assert [(s.pos_start, s.pos_end) for s in segments] == [
            (0, 32),
            (32, 64),
            (64, 96),
            (96, 100),
        ]
        assert all(s.part and s.part.n_rows == s.pos_end - s.pos_start for s in segments)

    def test_tell_what_was_never_computed(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        store.leases.commit(lease, part_of(lease))
        first, *others = store.finalization.segments(job.id)
        assert first.part is not None
        assert first.part.epoch == lease.epoch
        assert {(s.state, s.part) for s in others} == {(ShardState.STOPPED, None)}


class TestComplete:
    def test_ends_the_job(self, store: Store) -> None:
        job = finalizing_job(store)
        ended = complete(store, claimed(store, job))
        assert ended.state is JobState.COMPLETED
        assert (ended.manifest_sha256, ended.final_epoch) == (MANIFEST, 1)
        assert ended.dataset_path == f"datasets/{job.public_id}/e1"
        assert ended.ended_at is not None
        assert store.finalization.finalizable() == []
        assert claim(store, job) is None

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_whose_outcome_is_unknown_is_read_again(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        broken = break_commit(moment)
        assert complete(store, final).state is JobState.COMPLETED
        assert broken == [moment]

    def test_of_a_cancelled_job(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        store.leases.commit(lease, part_of(lease))
        store.finalization.finalizable()
        assert complete(store, claimed(store, job)).state is JobState.CANCELLED

    def test_of_an_expired_job(self, store: Store) -> None:
        job = running_job(store)
        set_job(store, job.id, deadline=now_db() - 1.0)
        store.dispatch.expire_due()
        store.finalization.finalizable()
        assert complete(store, claimed(store, job)).state is JobState.EXPIRED

    def test_counts_the_rows_in_the_same_transaction(self, store: Store) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        with store.database.begin() as connection:
            first = store.jobs.shards(job.id)[0].id
            connection.execute(delete(parts).where(parts.c.shard_id == first))
        with pytest.raises(Corrupt, match="missing or short"):
            complete(store, final)
        assert state_of(store, job) is JobState.FINALIZING

    @pytest.mark.parametrize("which", [0, 1, -1])
    def test_sees_a_hole(self, store: Store, which: int) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        missing = store.jobs.shards(job.id)[which].id
        with store.database.begin() as connection:
            connection.execute(delete(parts).where(parts.c.shard_id == missing))
            connection.execute(delete(shards).where(shards.c.id == missing))
        with pytest.raises(Corrupt, match=job.public_id):
            complete(store, final)
        assert state_of(store, job) is JobState.FINALIZING

    @pytest.mark.parametrize("state", [ShardState.READY, ShardState.STOPPED])
    def test_of_a_job_nobody_stopped_needs_every_shard(
        self, store: Store, state: ShardState
    ) -> None:
        job = finalizing_job(store)
        final = claimed(store, job)
        first = store.jobs.shards(job.id)[0].id
        with store.database.begin() as connection:
            connection.execute(delete(parts).where(parts.c.shard_id == first))
        set_shard(store, first, state=state)
        with pytest.raises(Corrupt, match=f"is {state}"):
            complete(store, final)

    def test_nothing_can_be_committed_afterwards(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        let_expire(store, lease)
        store.leases.reap()
        store.finalization.finalizable()
        complete(store, claimed(store, job))
        with pytest.raises(Fenced):
            store.leases.commit(lease, part_of(lease))

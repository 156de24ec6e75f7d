from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from decimal import Decimal

import pytest

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import UNMEASURED
from batchgen.core.states import JobState, ShardState, StopReason
from batchgen.errors import JobNotFound, NotAllowed
from batchgen.jobs.records.job_records import JobRecord, Progress
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
    states_of,
)


def completed_job(store: Store) -> JobRecord:
    job = running_job(store)
    commit_all(store, job)
    assert store.finalization.finalizable() == [job.id]
    final = store.finalization.claim(job.id, owner=OWNER, ttl=TTL)
    assert final is not None
    return store.finalization.complete(
        final, dataset_path=f"datasets/{job.public_id}/e1", manifest_sha256="a" * 64
    )


def test_pages_of_each_state_are_whole(store: Store) -> None:
    states = [JobState.QUEUED, JobState.RUNNING, JobState.FAILED]
    jobs = [store.jobs.submit(new_job()) for _ in range(9)]
    for number, job in enumerate(jobs):
        set_job(store, job.id, state=states[number % 3])
    for number, state in enumerate(states):
        wanted = [job.id for job in jobs[number::3]][::-1]
        page = store.jobs.list(states=[state], limit=2)
        rest = store.jobs.list(states=[state], limit=2, before_id=page[-1].id)
        assert [job.id for job in [*page, *rest]] == wanted
    both = store.jobs.list(states=states[:2], before_id=jobs[4].id)
    assert [job.id for job in both] == [jobs[at].id for at in (3, 1, 0)]


class TestGet:
    def test_by_id_beginning_and_end(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        for ref in (job.public_id, job.public_id[:12], job.public_id[-6:]):
            assert store.jobs.get(ref) == job

    def test_what_names_two_jobs_names_none(self, store: Store) -> None:
        first, second = store.jobs.submit(new_job()), store.jobs.submit(new_job())
        common = first.public_id[:6]
        assert second.public_id.startswith(common)
        with pytest.raises(JobNotFound, match="more than one"):
            store.jobs.get(common)

    @pytest.mark.parametrize("ref", ["", "abc", "f" * 32, "f" * 33, "%", "____", "../x", "A" * 8])
    def test_unknown(self, store: Store, ref: str) -> None:
        store.jobs.submit(new_job())
        with pytest.raises(JobNotFound):
            store.jobs.get(ref)

    def test_another_tenant_s_job_is_unknown(self, store: Store) -> None:
        job = store.jobs.submit(new_job(tenant_id="other"))
        with pytest.raises(JobNotFound):
            store.jobs.get(job.public_id)
        assert store.jobs.get(job.public_id, tenant="other") == job

    def test_by_internal_id(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        assert store.jobs.by_id(job.id) == job
        with pytest.raises(JobNotFound):
            store.jobs.by_id(job.id + 1)


class TestList:
    def test_is_newest_first_and_pages(self, store: Store) -> None:
        ids = [store.jobs.submit(new_job()).id for _ in range(5)]
        page = store.jobs.list(limit=2)
        assert [job.id for job in page] == [ids[4], ids[3]]
        rest = store.jobs.list(before_id=page[-1].id)
        assert [job.id for job in rest] == [ids[2], ids[1], ids[0]]

    def test_by_state_and_tenant(self, store: Store) -> None:
        running = running_job(store)
        queued = store.jobs.submit(new_job())
        store.jobs.submit(new_job(tenant_id="other"))
        assert [job.id for job in store.jobs.list()] == [queued.id, running.id]
        found = store.jobs.list(states={JobState.RUNNING, JobState.FAILED})
        assert [job.id for job in found] == [running.id]


class TestProgress:
    def test_of_a_new_job(self, store: Store) -> None:
        progress = store.jobs.progress(store.jobs.submit(new_job(100)).id)
        assert (progress.committed, progress.n_rows) == (0, 100)
        assert (progress.rows_done, progress.fraction) == (0, 0.0)

    def test_counts_committed_reported_and_checkpointed_rows(self, store: Store) -> None:
        job = running_job(store, 100)
        committed, reported, released = (claim_first(store, job) for _ in range(3))
        store.leases.commit(committed, part_of(committed, n_err=2))
        store.leases.renew(reported, rows_done=10, ttl=TTL)
        store.leases.checkpoint(released, part_of(released))
        store.leases.release(released)
        progress = store.jobs.progress(job.id)
        assert progress.committed == 1
        assert progress.rows_done == 32 + 10 + 32
        assert (progress.rows_ok, progress.rows_err) == (30, 2)
        assert progress.finish_reasons == FinishReasons(stop=29, length=1)
        assert (progress.prompt_tokens, progress.completion_tokens) == (7 * 32, 3 * 32)
        assert (progress.cached_tokens, progress.kv.rows) == (2 * 32, 30)
        assert (progress.kv.preemptions, progress.kv.copies) == (5, 4 * 32)
        assert (progress.kv.utilisation, progress.kv.sharing_saving) == (0.75, 0.25)
        of_rows = (*astuple(progress.kv), *astuple(progress.finish_reasons))
        numbers = [*astuple(progress), *of_rows]
        assert not any(isinstance(value, Decimal) for value in numbers)

    def test_counts_tokens_of_rows_in_work_while_they_are_leased(self, store: Store) -> None:
        job = running_job(store, 100)
        committed, first, second = (claim_first(store, job) for _ in range(3))
        store.leases.commit(committed, part_of(committed))
        store.leases.renew(first, rows_done=0, tokens_running=700, ttl=TTL)
        store.leases.renew(second, rows_done=3, tokens_done=30, tokens_running=8, ttl=TTL)
        progress = store.jobs.progress(job.id)
        in_work = (progress.rows_in_work, progress.tokens_in_work, progress.tokens_running)
        assert in_work == (3, 30, 708)
        assert progress.generated_tokens == 3 * 32 + 738
        store.leases.release(second)
        assert store.jobs.progress(job.id).tokens_running == 700
        assert store.leases.claim(second.shard_id, owner="host/2", ttl=TTL) is not None
        assert store.jobs.progress(job.id).generated_tokens == 3 * 32 + 700

    def test_means_weigh_the_answered_rows_of_each_part(self, store: Store) -> None:
        job = running_job(store, 40)
        large, small = claim_first(store, job), claim_first(store, job)
        assert (large.n_rows, small.n_rows) == (32, 8)
        store.leases.commit(large, part_of(large, n_err=8, utilisation=0.5))
        store.leases.commit(small, part_of(small, utilisation=1.0))
        kv = store.jobs.progress(job.id).kv
        assert (kv.rows, kv.preemptions) == (32, 10)
        assert kv.utilisation == pytest.approx((24 * 0.5 + 8 * 1.0) / 32)

    def test_parts_that_nobody_measured_leave_the_means_alone(self, store: Store) -> None:
        job = running_job(store, 40)
        measured, unmeasured = claim_first(store, job), claim_first(store, job)
        store.leases.commit(unmeasured, replace(part_of(unmeasured), kv=UNMEASURED))
        assert store.jobs.progress(job.id).kv == UNMEASURED
        store.leases.commit(measured, part_of(measured))
        kv = store.jobs.progress(job.id).kv
        assert (kv.rows, kv.utilisation, kv.sharing_saving) == (measured.n_rows, 0.75, 0.25)

    def test_a_stopped_shard_is_not_done(self, store: Store) -> None:
        job = running_job(store, 100)
        lease = claim_first(store, job)
        store.leases.checkpoint(lease, part_of(lease))
        store.jobs.cancel(job.id)
        store.leases.release(lease)
        progress = store.jobs.progress(job.id)
        assert (progress.committed, progress.rows_done) == (0, 0)

    def test_reaches_the_end(self, store: Store) -> None:
        progress = store.jobs.progress(completed_job(store).id)
        assert (progress.committed, progress.rows_done, progress.fraction) == (4, 100, 1.0)

    def test_of_no_job_is_nothing(self, store: Store) -> None:
        assert store.jobs.progress(4711) == Progress()

    def test_looks_at_no_shard_but_those_in_work(self, store: Store) -> None:
        job = running_job(store, 320)
        store.leases.renew(claim_first(store, job), rows_done=3, ttl=TTL)
        lease = claim_first(store, job)
        store.leases.commit(lease, part_of(lease))
        # whoever added these up would see it
        set_shard(store, lease.shard_id, rows_done=7)
        assert store.jobs.progress(job.id).rows_done == 3 + 32


def test_shards_are_counted_by_state(store: Store) -> None:
    job = running_job(store, 160)
    claim_first(store, job)
    committed = claim_first(store, job)
    store.leases.commit(committed, part_of(committed))
    counted = store.jobs.count_shards(job.id)
    assert counted == {ShardState.READY: 3, ShardState.LEASED: 1, ShardState.COMMITTED: 1}
    assert counted[ShardState.SPLIT] == 0


class TestPause:
    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
    def test_and_resume(self, store: Store, state: JobState) -> None:
        job = store.jobs.submit(new_job())
        set_job(store, job.id, state=state)
        assert store.jobs.pause(job.id).paused
        assert store.jobs.pause(job.id).paused
        resumed = store.jobs.resume(job.id)
        assert (resumed.paused, resumed.state) == (False, state)
        assert not store.jobs.resume(job.id).paused

    @pytest.mark.parametrize(
        "state", [JobState.STOPPING, JobState.FINALIZING, JobState.CANCELLED, JobState.FAILED]
    )
    def test_is_refused_past_running(self, store: Store, state: JobState) -> None:
        job = store.jobs.submit(new_job())
        set_job(store, job.id, state=state)
        with pytest.raises(NotAllowed, match="paused"):
            store.jobs.pause(job.id)
        with pytest.raises(NotAllowed, match="resumed"):
            store.jobs.resume(job.id)


class TestCancel:
    def test_of_a_queued_job_stops_every_shard(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        stopped = store.jobs.cancel(job.id)
        assert (stopped.state, stopped.stop_reason) == (JobState.STOPPING, StopReason.CANCEL)
        assert set(states_of(store, job)) == {ShardState.STOPPED}
        assert store.finalization.finalizable() == [job.id]

    def test_of_a_running_job_leaves_leased_shards_to_their_workers(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        assert states_of(store, job) == [ShardState.LEASED] + [ShardState.STOPPED] * 3
        assert store.finalization.finalizable() == []
        store.leases.commit(lease, part_of(lease))
        assert store.finalization.finalizable() == [job.id]

    def test_whose_worker_died_ends_through_the_reaper(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        let_expire(store, lease)
        assert store.finalization.finalizable() == []
        store.leases.reap()
        assert store.finalization.finalizable() == [job.id]

    def test_of_a_paused_job(self, store: Store) -> None:
        job = running_job(store)
        store.jobs.pause(job.id)
        stopped = store.jobs.cancel(job.id)
        assert (stopped.state, stopped.paused) == (JobState.STOPPING, False)
        assert store.finalization.finalizable() == [job.id]

    @pytest.mark.parametrize("state", [JobState.STOPPING, JobState.FINALIZING, JobState.CANCELLED])
    def test_twice_changes_nothing(self, store: Store, state: JobState) -> None:
        job = running_job(store)
        store.jobs.cancel(job.id)
        set_job(store, job.id, state=state)
        before = store.jobs.by_id(job.id)
        assert store.jobs.cancel(job.id) == before == store.jobs.by_id(job.id)

    def test_of_a_job_that_its_deadline_stops_changes_nothing(self, store: Store) -> None:
        job = running_job(store)
        set_job(store, job.id, deadline=1.0)
        store.dispatch.expire_due()
        assert store.jobs.cancel(job.id).stop_reason is StopReason.EXPIRE

    @pytest.mark.parametrize(
        ("state", "advice"),
        [
            (JobState.FINALIZING, "batchgen wait"),
            (JobState.EXPIRED, "its deadline"),
            (JobState.FAILED, "has ended already"),
        ],
    )
    def test_comes_too_late(self, store: Store, state: JobState, advice: str) -> None:
        job = running_job(store)
        set_job(store, job.id, state=state)
        with pytest.raises(NotAllowed, match=f"is {state}: .*{advice}"):
            store.jobs.cancel(job.id)

    def test_of_a_completed_job_is_refused(self, store: Store) -> None:
        with pytest.raises(NotAllowed, match="is completed: there is nothing to cancel"):
            store.jobs.cancel(completed_job(store).id)


class TestFail:
    def test_ends_the_job_with_its_reason(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        failed = store.jobs.fail(job.id, "the input changed")
        assert (failed.state, failed.error) == (JobState.FAILED, "the input changed")
        assert failed.ended_at is not None
        assert store.jobs.fail(job.id, "again").error == "the input changed"
        assert not store.leases.renew(lease, rows_done=0, ttl=TTL).goes_on
        store.leases.release(lease)
        assert set(states_of(store, job)) == {ShardState.STOPPED}
        assert store.finalization.finalizable() == []

    def test_of_a_completed_job_is_refused(self, store: Store) -> None:
        job = completed_job(store)
        with pytest.raises(NotAllowed):
            store.jobs.fail(job.id, "no")
        assert state_of(store, job) is JobState.COMPLETED


@pytest.mark.parametrize("moment", ["before", "after"])
def test_unknown_outcomes_of_cancel_are_one_cancel(
    store: Store, break_commit: Callable[[str], list[str]], moment: str
) -> None:
    job = running_job(store)
    break_commit(moment)
    assert store.jobs.cancel(job.id).state is JobState.STOPPING

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.database.database import now_db
from batchgen.errors import DatabaseUnavailable, Fenced
from batchgen.jobs import transitions
from batchgen.jobs.records.job_records import Lease
from batchgen.jobs.store import Store
from tests.support.jobs import (
    OWNER,
    TTL,
    claim_first,
    commit_all,
    count_parts,
    database_now,
    let_expire,
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


def claim(store: Store, shard_id: int) -> Lease | None:
    return store.leases.claim(shard_id, owner=OWNER, ttl=TTL)


class TestClaim:
    def test_gives_what_a_worker_needs(self, store: Store) -> None:
        job = running_job(store, 100, params={"temperature": 0.5, "stop": ["\n"]})
        second = store.jobs.shards(job.id)[1]
        lease = claim(store, second.id)
        assert lease is not None
        assert (lease.shard_id, lease.epoch, lease.attempts, lease.lost) == (second.id, 1, 1, 0)
        assert (lease.pos_start, lease.pos_end, lease.n_rows) == (32, 64, 32)
        assert (lease.job_id, lease.job_public_id) == (job.id, job.public_id)
        assert lease.params == {"temperature": 0.5, "stop": ["\n"]}
        assert (lease.model, lease.input_sha256) == (job.model, job.input_sha256)
        assert lease.owner.startswith(OWNER + "/")

    def test_expires_by_the_clock_of_the_database(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        expires_at = shard(store, lease.shard_id).lease_expires_at
        assert expires_at is not None
        assert 0 < expires_at - database_now(store.database) <= TTL

    def test_of_a_leased_shard_is_refused(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        assert claim(store, lease.shard_id) is None
        assert shard(store, lease.shard_id).epoch == 1

    def test_of_a_shard_that_does_not_exist_is_refused(self, store: Store) -> None:
        assert claim(store, 987654321) is None

    def test_takes_over_an_expired_lease_under_the_next_epoch(self, store: Store) -> None:
        former = claim_first(store, running_job(store))
        let_expire(store, former)
        lease = claim(store, former.shard_id)
        assert lease is not None
        assert (lease.epoch, lease.attempts, lease.lost) == (2, 2, 1)
        assert lease.owner != former.owner

    def test_waits_for_the_job_to_start(self, store: Store) -> None:
        job = store.jobs.submit(new_job())
        assert claim(store, store.jobs.shards(job.id)[0].id) is None

    def test_of_a_paused_job_is_refused_until_it_is_resumed(self, store: Store) -> None:
        job = running_job(store)
        first = store.jobs.shards(job.id)[0].id
        store.jobs.pause(job.id)
        assert claim(store, first) is None
        store.jobs.resume(job.id)
        assert claim(store, first) is not None

    @pytest.mark.parametrize("state", [JobState.STOPPING, JobState.FINALIZING, JobState.FAILED])
    def test_needs_a_running_job(self, store: Store, state: JobState) -> None:
        job = running_job(store)
        set_job(store, job.id, state=state)
        assert claim(store, store.jobs.shards(job.id)[0].id) is None

    def test_honours_the_not_before_of_the_shard(self, store: Store) -> None:
        first = store.jobs.shards(running_job(store).id)[0].id
        set_shard(store, first, not_before=now_db() + 60.0)
        assert claim(store, first) is None
        set_shard(store, first, not_before=now_db() - 1.0)
        assert claim(store, first) is not None

    def test_honours_the_window_by_the_clock_of_the_database(self, store: Store) -> None:
        now = database_now(store.database)
        job = running_job(store, window=window_around(now, opens=-3600, closes=3600))
        first = store.jobs.shards(job.id)[0].id
        set_job(store, job.id, window_spec=window_around(now, opens=3600, closes=7200))
        assert claim(store, first) is None
        set_job(store, job.id, window_spec=window_around(now, opens=-3600, closes=3600))
        assert claim(store, first) is not None

    @pytest.mark.parametrize("state", [ShardState.STOPPED, ShardState.SPLIT])
    def test_of_a_final_shard_is_refused(self, store: Store, state: ShardState) -> None:
        first = store.jobs.shards(running_job(store).id)[0].id
        set_shard(store, first, state=state)
        assert claim(store, first) is None

    def test_of_a_committed_shard_is_refused(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        store.leases.commit(lease, part_of(lease))
        assert claim(store, lease.shard_id) is None


class TestRenew:
    def test_extends_the_lease_and_reports_rows(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        let_expire(store, lease)
        renewal = store.leases.renew(lease, rows_done=7, ttl=TTL)
        assert renewal.goes_on
        assert shard(store, lease.shard_id).rows_done == 7
        assert store.leases.reap() == 0

    def test_of_a_lease_taken_over_is_fenced(self, store: Store) -> None:
        former = claim_first(store, running_job(store))
        let_expire(store, former)
        lease = claim(store, former.shard_id)
        assert lease is not None
        with pytest.raises(Fenced):
            store.leases.renew(former, rows_done=1, ttl=TTL)
        store.leases.renew(lease, rows_done=1, ttl=TTL)

    def test_of_a_reaped_lease_is_fenced(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        let_expire(store, lease)
        store.leases.reap()
        with pytest.raises(Fenced):
            store.leases.renew(lease, rows_done=1, ttl=TTL)

    def test_tells_of_a_pause_and_of_a_stop(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.pause(job.id)
        paused = store.leases.renew(lease, rows_done=0, ttl=TTL)
        assert (paused.state, paused.paused, paused.goes_on) == (JobState.RUNNING, True, False)
        store.jobs.cancel(job.id)
        stopping = store.leases.renew(lease, rows_done=0, ttl=TTL)
        assert (stopping.state, stopping.goes_on) == (JobState.STOPPING, False)


class TestCheckpoint:
    def test_is_found_by_the_next_claimant_and_counts_as_done(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        saved = part_of(lease)
        assert store.leases.checkpoint(lease, saved) is None
        store.leases.renew(lease, rows_done=30, ttl=TTL)
        let_expire(store, lease)
        store.leases.reap()
        found = store.leases.checkpoint_of(lease.shard_id)
        assert found is not None
        assert (found.path, found.sha256, found.epoch) == (saved.path, saved.sha256, 1)
        # what was reported beyond the checkpoint is lost
        assert shard(store, lease.shard_id).rows_done == saved.n_rows

    def test_replaces_the_former_and_names_it(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        first, second = part_of(lease), part_of(lease)
        store.leases.checkpoint(lease, first)
        assert store.leases.checkpoint(lease, second) == first.path
        # a repetition must not name the file that counts
        assert store.leases.checkpoint(lease, second) is None

    def test_under_a_lost_lease_is_fenced(self, store: Store) -> None:
        former = claim_first(store, running_job(store))
        let_expire(store, former)
        assert claim(store, former.shard_id) is not None
        with pytest.raises(Fenced):
            store.leases.checkpoint(former, part_of(former))
        assert store.leases.checkpoint_of(former.shard_id) is None

    def test_is_forgotten_at_the_commit(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        store.leases.checkpoint(lease, part_of(lease))
        store.leases.commit(lease, part_of(lease))
        assert store.leases.checkpoint_of(lease.shard_id) is None


class TestCommit:
    def test_registers_the_part_once(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.leases.commit(lease, part_of(lease, n_err=2))
        record = shard(store, lease.shard_id)
        assert (record.state, record.lease_owner) == (ShardState.COMMITTED, None)
        progress = store.jobs.progress(job.id)
        assert (progress.committed, progress.rows_ok, progress.rows_err) == (1, 30, 2)

    def test_again_with_the_same_part_is_success(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        part = part_of(lease)
        store.leases.commit(lease, part)
        store.leases.commit(lease, part)
        assert count_parts(store, job) == 1

    def test_of_another_part_under_the_same_lease_is_fenced(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.leases.commit(lease, part_of(lease))
        with pytest.raises(Fenced):
            store.leases.commit(lease, part_of(lease))
        assert count_parts(store, job) == 1

    def test_under_a_lease_taken_over_is_fenced(self, store: Store) -> None:
        job = running_job(store)
        former = claim_first(store, job)
        let_expire(store, former)
        lease = claim(store, former.shard_id)
        assert lease is not None
        with pytest.raises(Fenced):
            store.leases.commit(former, part_of(former))
        assert count_parts(store, job) == 0
        store.leases.commit(lease, part_of(lease))
        with pytest.raises(Fenced):
            store.leases.commit(former, part_of(former))
        assert count_parts(store, job) == 1

    def test_of_a_reaped_shard_is_fenced(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        let_expire(store, lease)
        store.leases.reap()
        with pytest.raises(Fenced):
            store.leases.commit(lease, part_of(lease))
        assert shard(store, lease.shard_id).state is ShardState.READY

    def test_is_allowed_while_the_job_stops(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        store.leases.commit(lease, part_of(lease))
        assert count_parts(store, job) == 1

    @pytest.mark.parametrize("state", [JobState.FINALIZING, JobState.CANCELLED, JobState.FAILED])
    def test_is_refused_once_the_job_has_gone_on(self, store: Store, state: JobState) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        set_job(store, job.id, state=state)
        with pytest.raises(Fenced):
            store.leases.commit(lease, part_of(lease))
        assert count_parts(store, job) == 0

    def test_waits_for_whoever_is_moving_the_job(self, store: Store) -> None:
        """The job cannot leave running between a commit's look at it and its COMMIT."""
        job = running_job(store)
        lease = claim_first(store, job)
        with ThreadPoolExecutor(1) as threads:
            with store.database.begin() as connection:
                transitions.fail(
                    connection, transitions.lock_job(connection, job.id), "the input changed"
                )
                committing = threads.submit(store.leases.commit, lease, part_of(lease))
                # long enough for a commit that would not wait
                wait([committing], timeout=0.3)
            assert isinstance(committing.exception(), Fenced)
        assert count_parts(store, job) == 0


@pytest.mark.parametrize("moment", ["before", "after"])
class TestUnknownOutcome:
    def test_commit_reads_it_again(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        part = part_of(lease)
        broken = break_commit(moment)
        store.leases.commit(lease, part)
        assert broken == [moment]
        assert count_parts(store, job) == 1
        assert shard(store, lease.shard_id).state is ShardState.COMMITTED

    def test_release_is_done_once(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        lease = claim_first(store, running_job(store))
        break_commit(moment)
        store.leases.release(lease)
        assert shard(store, lease.shard_id).state is ShardState.READY

    def test_checkpoint_never_names_its_own_file(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        lease = claim_first(store, running_job(store))
        saved = part_of(lease)
        break_commit(moment)
        assert store.leases.checkpoint(lease, saved) is None

    def test_claim_is_not_repeated(
        self, store: Store, break_commit: Callable[[str], list[str]], moment: str
    ) -> None:
        first = store.jobs.shards(running_job(store).id)[0].id
        break_commit(moment)
        with pytest.raises(DatabaseUnavailable):
            claim(store, first)
        # a lease that nobody knows of runs out like any other
        assert shard(store, first).epoch == (1 if moment == "after" else 0)


def test_unknown_outcome_may_turn_out_to_be_another_s(
    store: Store,
    break_commit: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the lost COMMIT is repeated, another worker has taken and finished the shard."""
    job = running_job(store)
    former = claim_first(store, job)

    def release_dead_leases(_: int) -> None:
        let_expire(store, former)
        lease = claim(store, former.shard_id)
        assert lease is not None
        store.leases.commit(lease, part_of(lease))

    break_commit("before")
    monkeypatch.setattr("batchgen.database.transactions.pause", release_dead_leases)
    with pytest.raises(Fenced):
        store.leases.commit(former, part_of(former))
    assert count_parts(store, job) == 1
    assert shard(store, former.shard_id).epoch == 2


class TestRelease:
    def test_leaves_the_counts_and_is_ready_at_once(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        store.leases.release(lease, error="no space left")
        record = shard(store, lease.shard_id)
        assert (record.state, record.epoch, record.attempts) == (ShardState.READY, 1, 1)
        assert (record.lost, record.deaths, record.lease_owner) == (0, 0, None)
        assert (record.last_error, record.enqueued_at) == ("no space left", None)
        assert claim(store, lease.shard_id) is not None

    def test_with_a_delay_is_not_claimed_before(self, store: Store) -> None:
        lease = claim_first(store, running_job(store))
        store.leases.release(lease, delay=60.0)
        assert claim(store, lease.shard_id) is None

    def test_of_a_stopping_job_s_shard_stops_it(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        store.leases.release(lease)
        assert set(states_of(store, job)) == {ShardState.STOPPED}

    def test_of_a_lease_taken_over_is_fenced(self, store: Store) -> None:
        former = claim_first(store, running_job(store))
        let_expire(store, former)
        assert claim(store, former.shard_id) is not None
        with pytest.raises(Fenced):
            store.leases.release(former)
        assert shard(store, former.shard_id).state is ShardState.LEASED


class TestReap:
    def test_takes_back_what_ran_out_and_nothing_else(self, store: Store) -> None:
        job = running_job(store)
        lost, kept = claim_first(store, job), claim_first(store, job)
        let_expire(store, lost)
        assert store.leases.reap() == 1
        record = shard(store, lost.shard_id)
        assert (record.state, record.lost, record.epoch) == (ShardState.READY, 1, 1)
        assert shard(store, kept.shard_id).state is ShardState.LEASED
        assert store.leases.reap() == 0

    def test_stops_a_shard_whose_job_stops(self, store: Store) -> None:
        job = running_job(store)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        let_expire(store, lease)
        assert store.leases.reap() == 1
        assert set(states_of(store, job)) == {ShardState.STOPPED}

    def test_stops_a_ready_shard_that_a_stop_missed(self, store: Store) -> None:
        job = running_job(store)
        store.jobs.cancel(job.id)
        set_shard(store, store.jobs.shards(job.id)[0].id, state=ShardState.READY)
        store.leases.reap()
        assert set(states_of(store, job)) == {ShardState.STOPPED}

    def test_leaves_ended_jobs_alone(self, store: Store) -> None:
        job = running_job(store)
        commit_all(store, job)
        store.leases.reap()
        assert set(states_of(store, job)) == {ShardState.COMMITTED}
        assert state_of(store, job) is JobState.RUNNING

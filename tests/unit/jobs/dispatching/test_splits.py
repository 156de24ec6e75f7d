"""A shard that is split tiles as before, loses nothing and has one owner a piece."""

from __future__ import annotations

import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.errors import Fenced
from batchgen.jobs.dispatching import splits
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_tables
from tests.support.jobs import (
    MODEL,
    OWNER,
    TTL,
    claim_first,
    commit_all,
    let_expire,
    part_of,
    running_job,
    set_shard,
    shard,
    states_of,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "MIN_LEFT", 8)


class TestAsking:
    def test_picks_the_shard_with_the_most_rows_left(self, store: Store) -> None:
        job = running_job(store, 64)
        first, second = claim_first(store, job), claim_first(store, job)
        store.leases.renew(first, rows_done=20, ttl=TTL)
        store.leases.renew(second, rows_done=10, ttl=TTL)
        assert store.splits.ask(MODEL) == second.shard_id
        assert not store.leases.renew(first, rows_done=20, ttl=TTL).give_up
        assert store.leases.renew(second, rows_done=10, ttl=TTL).give_up

    def test_once_is_enough(self, store: Store) -> None:
        job = running_job(store, 64)
        claim_first(store, job)
        claim_first(store, job)
        assert store.splits.ask(MODEL) is not None
        assert store.splits.ask(MODEL) is None

    def test_waits_while_a_shard_is_ready(self, store: Store) -> None:
        claim_first(store, running_job(store, 64))
        assert store.splits.ask(MODEL) is None

    def test_leaves_a_shard_that_is_almost_done(self, store: Store) -> None:
        lease = claim_first(store, running_job(store, 30))
        store.leases.renew(lease, rows_done=25, ttl=TTL)
        assert store.splits.ask(MODEL) is None

    def test_the_next_claim_begins_unasked(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        store.splits.ask(MODEL)
        let_expire(store, lease)
        assert not store.leases.renew(claim_first(store, job), rows_done=0, ttl=TTL).give_up


class TestSplitting:
    def test_both_parts_are_computed_once(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        first = store.splits.split(lease, cut=12, ttl=TTL)
        assert (first.pos_start, first.pos_end, first.owner) == (0, 12, lease.owner)
        assert states_of(store, job) == [ShardState.LEASED, ShardState.READY]
        store.leases.commit(first, part_of(first))
        rest = claim_first(store, job)
        assert (rest.pos_start, rest.pos_end, rest.epoch) == (12, 30, 1)
        store.leases.commit(rest, part_of(rest))
        assert store.finalization.finalizable() == [job.id]
        assert store.jobs.progress(job.id).rows_done == 30
        assert check_tables(store) == []

    def test_the_old_lease_is_worth_nothing(self, store: Store) -> None:
        lease = claim_first(store, running_job(store, 30))
        store.splits.split(lease, cut=12, ttl=TTL)
        with pytest.raises(Fenced):
            store.leases.commit(lease, part_of(lease))
        with pytest.raises(Fenced):
            store.leases.renew(lease, rows_done=0, ttl=TTL)

    def test_again_with_the_same_lease_gives_the_same(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        first = store.splits.split(lease, cut=12, ttl=TTL)
        assert store.splits.split(lease, cut=12, ttl=TTL) == first
        assert len(store.jobs.shards(job.id)) == 2

    def test_of_a_lease_taken_over_is_fenced(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        let_expire(store, lease)
        assert store.leases.claim(lease.shard_id, owner=OWNER, ttl=TTL) is not None
        with pytest.raises(Fenced):
            store.splits.split(lease, cut=12, ttl=TTL)
        assert states_of(store, job) == [ShardState.LEASED]

    def test_the_checkpoint_goes_with_the_beginning(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        store.leases.checkpoint(lease, part_of(lease))
        first = store.splits.split(lease, cut=12, ttl=TTL)
        assert store.leases.checkpoint_of(lease.shard_id) is None
        assert store.leases.checkpoint_of(first.shard_id) is not None
        assert check_tables(store) == []

    def test_of_a_job_that_stops_stops_the_rest(self, store: Store) -> None:
        job = running_job(store, 30)
        lease = claim_first(store, job)
        store.jobs.cancel(job.id)
        store.splits.split(lease, cut=12, ttl=TTL)
        assert states_of(store, job) == [ShardState.LEASED, ShardState.STOPPED]

    def test_what_happened_to_the_parent_is_not_forgotten(self, store: Store) -> None:
        job = running_job(store, 30)
        (record,) = store.jobs.shards(job.id)
        set_shard(store, record.id, lost=4, deaths=2)
        store.splits.split(claim_first(store, job), cut=12, ttl=TTL)
        assert [(one.lost, one.deaths) for one in store.jobs.shards(job.id)] == [(4, 2), (4, 2)]

    def test_pieces_can_be_split_again(self, store: Store) -> None:
        job = running_job(store, 30)
        first = store.splits.split(claim_first(store, job), cut=20, ttl=TTL)
        store.splits.split(first, cut=5, ttl=TTL)
        commit_all(store, job)
        (leased,) = [one for one in store.jobs.shards(job.id) if one.state is ShardState.LEASED]
        assert (leased.pos_start, leased.pos_end) == (0, 5)
        assert check_tables(store) == []
        assert store.jobs.by_id(job.id).state is JobState.RUNNING
        assert shard(store, leased.id).epoch == 1

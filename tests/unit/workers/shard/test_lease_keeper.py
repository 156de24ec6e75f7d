from __future__ import annotations

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import InputRow
from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.records.job_records import JobRecord, Renewal
from batchgen.jobs.store import Store
from batchgen_workers.shard import lease_keeper
from batchgen_workers.shard.lease_keeper import TOKENS_INTERVAL, LeaseKeeper
from batchgen_workers.shard.shard import Ending, Shard
from batchgen_workers.shard.shards import Shards
from tests.support.jobs import claim_first, let_expire, running_job
from tests.support.jobs import shard as shard_in_sql
from tests.support.result_rows import ok_row

TTL = 60.0
STALL = 600.0  # seconds


class Clock:
    """The monotonic clock of the keeper, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease_keeper, "time", clock)
    return clock


@pytest.fixture
def job(store: Store) -> JobRecord:
    return running_job(store, 40)


@pytest.fixture
def shard(store: Store, job: JobRecord) -> Shard:
    shard = Shard(claim_first(store, job))
    shard.fed()
    return shard


@pytest.fixture
def keeper(store: Store, shard: Shard, clock: Clock) -> LeaseKeeper:
    shards = Shards()
    shards.add(shard)
    keeper = LeaseKeeper(store=store, shards=shards, ttl=TTL, stall_timeout=STALL)
    keeper.tick()
    return keeper


def expiry(store: Store, shard: Shard) -> float:
    at = shard_in_sql(store, shard.lease.shard_id).lease_expires_at
    assert at is not None
    return at


def test_a_lease_is_renewed_after_a_sixth_of_its_time(
    store: Store, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    let_expire(store, shard.lease)
    clock.now += TTL / 6 - 2
    keeper.tick()
    before = expiry(store, shard)
    clock.now += 2
    keeper.tick()
    assert expiry(store, shard) > before + TTL - 1
    assert shard.ending is None


def test_progress_is_told_at_most_every_second(
    store: Store, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    shard.keep([ok_row(0)])
    clock.now += 0.2
    keeper.tick()
    assert shard_in_sql(store, shard.lease.shard_id).rows_done == 0
    clock.now += 0.8
    keeper.tick()
    assert shard_in_sql(store, shard.lease.shard_id).rows_done == 1


def test_nothing_is_written_while_nothing_happens(
    store: Store, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    before = expiry(store, shard)
    clock.now += 1.5
    keeper.tick()
    assert expiry(store, shard) == before


@pytest.mark.parametrize(
    ("act", "ending"), [("pause", Ending.HELD), ("cancel", Ending.STOPPED), ("fail", Ending.HELD)]
)
def test_what_the_job_wants_is_done(
    store: Store,
    job: JobRecord,
    keeper: LeaseKeeper,
    shard: Shard,
    clock: Clock,
    act: str,
    ending: Ending,
) -> None:
    if act == "fail":
        store.jobs.fail(job.id, "the input changed")
    else:
        getattr(store.jobs, act)(job.id)
    clock.now += TTL
    keeper.tick()
    assert shard.ending is ending


def test_a_lost_lease_fences_the_shard(
    store: Store, job: JobRecord, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    let_expire(store, shard.lease)
    assert store.leases.claim(shard.lease.shard_id, owner="other/2", ttl=TTL) is not None
    clock.now += TTL
    keeper.tick()
    assert shard.ending is Ending.FENCED


def test_an_absent_database_ends_nothing_and_is_asked_again(
    store: Store,
    keeper: LeaseKeeper,
    shard: Shard,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> Renewal:
        raise DatabaseUnavailable

    with monkeypatch.context() as absent:
        absent.setattr(store.leases, "renew", unreachable)
        clock.now += TTL
        keeper.tick()
    assert shard.ending is None
    let_expire(store, shard.lease)
    before = expiry(store, shard)
    keeper.tick()
    assert expiry(store, shard) > before


def test_ticks_are_frequent_enough_for_short_leases(store: Store) -> None:
    assert (
        LeaseKeeper(store=store, shards=Shards(), ttl=2.0, stall_timeout=STALL).interval <= 2.0 / 6
    )
    assert LeaseKeeper(store=store, shards=Shards(), ttl=60.0, stall_timeout=STALL).interval == 1.0


def test_a_shard_that_does_nothing_at_all_is_let_go(
    store: Store, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    """It is complete, and its part is not written: the disk hangs."""
    clock.now += STALL - 1
    keeper.tick()
    before = expiry(store, shard)
    clock.now += TTL
    keeper.tick()
    assert expiry(store, shard) == before
    shard.keep([ok_row(shard.lease.pos_start)])
    clock.now += TTL / 6
    keeper.tick()
    assert expiry(store, shard) > before


def test_a_shard_that_waits_its_turn_in_the_engine_is_kept(
    store: Store, keeper: LeaseKeeper, shard: Shard, clock: Clock
) -> None:
    row = InputRow(row=0, custom_id="q0", params=SamplingParams(), prompt="x")
    shard.expect([row])
    clock.now += 10 * STALL
    before = expiry(store, shard)
    keeper.tick()
    assert expiry(store, shard) > before


def test_a_shard_whose_checkpoint_hangs_holds_up_no_other(
    store: Store, keeper: LeaseKeeper, shard: Shard, job: JobRecord, clock: Clock
) -> None:
    other = Shard(claim_first(store, job))
    keeper.shards.add(other)
    keeper.tick()
    clock.now += TTL / 6
    hanging, before = expiry(store, shard), expiry(store, other)
    with shard.leasing:
        keeper.tick()
    assert expiry(store, shard) == hanging
    assert expiry(store, other) > before


def test_tokens_of_running_rows_are_told_though_no_row_ends(
    store: Store, shard: Shard, job: JobRecord, clock: Clock
) -> None:
    shards = Shards()
    shards.add(shard)
    keeper = LeaseKeeper(
        store=store, shards=shards, ttl=3600.0, stall_timeout=STALL, tokens_running=lambda _: 40
    )
    shard.expect([InputRow(row=0, custom_id="q", params=SamplingParams(), prompt="x")])
    keeper.tick()
    clock.now += TOKENS_INTERVAL - 1.0
    keeper.tick()
    assert store.jobs.progress(job.id).tokens_running == 0
    clock.now += 1.0
    keeper.tick()
    assert store.jobs.progress(job.id).tokens_running == 40

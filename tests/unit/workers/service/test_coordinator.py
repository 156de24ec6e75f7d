from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.errors import BrokerUnavailable
from batchgen.jobs.records.job_records import JobRecord, WorkerRecord
from batchgen.jobs.store import Store
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen_workers.service.coordinator import MESSAGES_PER_SLOT, Coordinator
from tests.support.jobs import (
    MODEL,
    claim_first,
    commit_all,
    let_expire,
    new_job,
    set_job,
    set_shard,
    state_of,
    states_of,
)
from tests.support.metrics import Changes
from tests.support.workers import wait_until

MANY = 64 * 32  # rows; so many shards


class NotingPublisher:
    """A publisher that notes what it is given, and can be made to fail."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.in_queue = 0
        self.broken = False
        self.takes = 1_000_000

    def publish(self, model: str, shard_ids: Sequence[int]) -> list[int]:
        taken = list(shard_ids[: self.takes])
        self.published += taken
        return list(shard_ids[self.takes :])

    def waiting(self, model: str) -> int:
        if self.broken:
            raise BrokerUnavailable
        return self.in_queue

    def close(self) -> None:
        pass


@pytest.fixture
def publisher() -> NotingPublisher:
    return NotingPublisher()


@pytest.fixture
def coordinator(store: Store, publisher: NotingPublisher, tmp_path: Path) -> Coordinator:
    settings = Settings(home=tmp_path, redispatch_after=30.0, heartbeat_interval=10.0)
    return Coordinator(settings, store=store, publisher=publisher)


def sign_on(store: Store, *, slots: int = 2, model: str = MODEL) -> None:
    store.workers.heartbeat(
        WorkerRecord(
            id=f"host/1/{slots}",
            model=model,
            slots=slots,
            device="cpu",
            pool_blocks=1,
            version="0",
            stats={},
        )
    )


def submitted(store: Store, n_rows: int = MANY, **fields: object) -> JobRecord:
    return store.jobs.submit(new_job(n_rows, **fields))


def test_a_due_job_is_started_and_rung_for(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    job = submitted(store)
    changes = Changes(Process.COORDINATOR)
    coordinator.tick()
    assert state_of(store, job) is JobState.RUNNING
    assert changes() == {
        "batchgen_coordinator_ticks_total": 1,
        f'batchgen_shards_published_total{{queue="{MODEL}"}}': MESSAGES_PER_SLOT * 2,
    }
    assert len(publisher.published) == MESSAGES_PER_SLOT * 2
    assert (
        publisher.published
        == [record.id for record in store.jobs.shards(job.id)][: len(publisher.published)]
    )


def test_nothing_is_rung_for_without_a_worker(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store, model="another")
    submitted(store)
    coordinator.tick()
    assert publisher.published == []


def test_a_window_of_messages_is_outstanding_and_no_more(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    job = submitted(store)
    coordinator.tick()
    coordinator.tick()
    assert len(publisher.published) == MESSAGES_PER_SLOT * 2
    claim_first(store, job)
    coordinator.tick()
    assert len(publisher.published) == MESSAGES_PER_SLOT * 2 + 1


def test_what_waits_in_the_broker_counts(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    submitted(store)
    publisher.in_queue = MESSAGES_PER_SLOT * 2 - 3
    coordinator.tick()
    assert len(publisher.published) == 3


def test_a_lost_message_is_published_again_after_a_while(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    job = submitted(store, 40)
    coordinator.tick()
    first, second = publisher.published
    set_shard(store, first, enqueued_at=1.0)
    coordinator.tick()
    assert publisher.published == [first, second, first]
    assert state_of(store, job) is JobState.RUNNING


def test_what_could_not_be_published_is_rung_at_the_next_tick(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    submitted(store, 96)
    publisher.takes = 1
    coordinator.tick()
    publisher.takes = 100
    coordinator.tick()
    assert len(publisher.published) == len(set(publisher.published)) == 3


def test_an_absent_broker_stops_nothing_else(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    job = submitted(store, 40)
    publisher.broken = True
    coordinator.tick()
    assert state_of(store, job) is JobState.RUNNING
    publisher.broken = False
    coordinator.tick()
    assert len(publisher.published) == 2


def test_a_dead_lease_is_taken_back(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    job = submitted(store, 10)
    coordinator.tick()
    let_expire(store, claim_first(store, job))
    coordinator.tick()
    assert states_of(store, job) == [ShardState.READY]
    assert len(publisher.published) == 2


def test_a_job_past_its_deadline_stops(store: Store, coordinator: Coordinator) -> None:
    job = submitted(store, 10)
    coordinator.tick()
    set_job(store, job.id, deadline=1.0)
    coordinator.tick()
    assert state_of(store, job) is JobState.STOPPING


MARS = "00:00-24:00 Mars/Base"  # as a machine with other time zones may have stored it


def test_a_window_that_cannot_be_read_holds_its_own_job_and_says_so(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher
) -> None:
    sign_on(store)
    queued, running = submitted(store, 10), submitted(store, 10)
    set_job(store, queued.id, window_spec=MARS)
    coordinator.tick()
    set_job(store, running.id, window_spec=MARS)
    store.dispatch.unmark(publisher.published)
    dead = submitted(store, 10)
    set_job(store, dead.id, deadline=1.0)
    healthy = submitted(store, 10)
    publisher.published.clear()
    coordinator.tick()
    assert state_of(store, queued) is JobState.QUEUED
    assert state_of(store, dead) is JobState.STOPPING
    assert publisher.published == [shard.id for shard in store.jobs.shards(healthy.id)]
    for job in (queued, running):
        assert "'Mars/Base' is not a time zone" in (store.jobs.by_id(job.id).error or "")
    set_job(store, running.id, window_spec="00:00-24:00 UTC")
    coordinator.tick()
    assert store.jobs.by_id(running.id).error is None
    assert len(publisher.published) == 2


def test_a_worker_does_not_claim_in_a_window_it_cannot_read(store: Store) -> None:
    job = submitted(store, 10)
    store.dispatch.start_due()
    set_job(store, job.id, window_spec=MARS)
    (shard,) = store.jobs.shards(job.id)
    assert store.leases.claim(shard.id, owner="host/1", ttl=60.0) is None
    assert "'Mars/Base' is not a time zone" in (store.jobs.by_id(job.id).error or "")


@pytest.mark.parametrize("broken", ["start_due", "expire_due"])
def test_a_step_that_fails_does_not_end_the_tick(
    store: Store, coordinator: Coordinator, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(store, 10)
    store.dispatch.start_due()
    let_expire(store, claim_first(store, job))

    def fail() -> None:
        raise ValueError(broken)

    monkeypatch.setattr(store.dispatch, broken, fail)
    coordinator.tick()
    assert states_of(store, job) == [ShardState.READY]


def test_two_coordinators_ring_for_each_shard_once(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher, tmp_path: Path
) -> None:
    other = Coordinator(Settings(home=tmp_path), store=store, publisher=publisher)
    sign_on(store, slots=100)
    submitted(store)
    coordinator.tick()
    other.tick()
    assert len(publisher.published) == len(set(publisher.published)) == 64


def test_running_ticks_when_nudged(
    store: Store, publisher: NotingPublisher, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, coordinator_interval=3600.0)
    coordinator = Coordinator(settings, store=store, publisher=publisher)
    with coordinator.running():
        job = submitted(store, 10)
        coordinator.nudge()
        wait_until(lambda: state_of(store, job) is JobState.RUNNING)


def test_files_that_nobody_needs_are_removed(
    store: Store, publisher: NotingPublisher, tmp_path: Path
) -> None:
    job = submitted(store, 10)
    store.jobs.fail(job.id, "The input changed.")
    left = tmp_path / "parts" / job.public_id / "1.e1.ab.parquet"
    left.parent.mkdir(parents=True)
    left.touch()
    settings = Settings(home=tmp_path, garbage_age=0.0)
    with Coordinator(settings, store=store, publisher=publisher).running():
        wait_until(lambda: not left.exists())


def test_a_broken_dataset_does_not_hold_up_dispatch(
    store: Store, coordinator: Coordinator, publisher: NotingPublisher, tmp_path: Path
) -> None:
    sign_on(store)
    broken = submitted(store, 10)
    (tmp_path / "parts" / broken.public_id).mkdir(parents=True)  # its parts alone are gone
    coordinator.tick()
    commit_all(store, broken)
    coordinator.finalise()
    assert state_of(store, broken) is JobState.FAILED
    submitted(store, 10)
    coordinator.tick()
    assert len(publisher.published) == 2

"""Many workers, dispatchers and finalisers at one store, everything going wrong at once.

Messages are lost and doubled, workers pause beyond their lease or die, and a COMMIT may fail
before or after the server has done it. Every part that a worker was told is committed must be
there at the end, once, and no other.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text

from batchgen.core.states import JobState, ShardState
from batchgen.database.database import Database
from batchgen.database.tables import parts
from batchgen.errors import DatabaseUnavailable, Fenced
from batchgen.jobs.records.job_records import JobRecord, Lease
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_tables
from tests.support.jobs import MODEL, claim_first, part_of, running_job

if TYPE_CHECKING:
    from sqlalchemy import PoolProxiedConnection

SEED = 20_261_122
N_ROWS = 24 * 32  # 24 shards
WORKERS = 6
TTL = 0.25  # seconds
PATIENCE = 60.0  # seconds
LOST, DOUBLED, PAUSED, DIED, REDELIVERED, BROKEN_COMMIT = 0.15, 0.15, 0.15, 0.15, 0.1, 0.08

# I9 and I10 as the database sees them: at the moment a row changes.
SQLITE_TRIGGERS = (
    """CREATE TRIGGER watch_epochs BEFORE UPDATE ON shards
       WHEN NEW.epoch < OLD.epoch OR NEW.attempts < OLD.attempts OR NEW.lost < OLD.lost
       BEGIN SELECT raise(ABORT, 'I9: an epoch fell'); END""",
    """CREATE TRIGGER watch_parts BEFORE INSERT ON parts
       WHEN (SELECT state FROM jobs WHERE id = NEW.job_id) NOT IN ('running', 'stopping')
       BEGIN SELECT raise(ABORT, 'I10: a part came too late'); END""",
)
POSTGRESQL_TRIGGERS = (
    """CREATE FUNCTION refuse() RETURNS trigger AS
       $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER watch_epochs BEFORE UPDATE ON shards FOR EACH ROW
       WHEN (NEW.epoch < OLD.epoch OR NEW.attempts < OLD.attempts OR NEW.lost < OLD.lost)
       EXECUTE FUNCTION refuse('I9: an epoch fell')""",
    """CREATE FUNCTION watch_part() RETURNS trigger AS $$ BEGIN
       IF (SELECT state FROM jobs WHERE id = NEW.job_id) NOT IN ('running', 'stopping') THEN
           RAISE EXCEPTION 'I10: a part came too late'; END IF;
       RETURN NEW; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER watch_parts BEFORE INSERT ON parts FOR EACH ROW
       EXECUTE FUNCTION watch_part()""",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def watched(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store whose database refuses a falling epoch and a late part by itself."""
    names = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    with closing(Database(request.getfixturevalue(names[request.param]))) as database:
        triggers = SQLITE_TRIGGERS if database.is_sqlite else POSTGRESQL_TRIGGERS
        with database.begin() as connection:
            for trigger in triggers:
                connection.execute(text(trigger))
        yield Store(database)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


@dataclass(slots=True)
class Storm:
    """COMMITs that fail until it is calm again, counted by the moment at which they failed."""

    broken: Counter[str] = field(default_factory=Counter)
    calm: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Chaos:
    """One job, the broker that loses its messages, and what workers were told."""

    store: Store
    job: JobRecord
    storm: Storm
    broker: queue.Queue[int] = field(default_factory=queue.Queue)
    # (shard, path) of every commit that returned
    acknowledged: list[tuple[int, str]] = field(default_factory=list)
    fenced: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def publish(self, shard_id: int, dice: random.Random) -> None:
        for _ in range(2 if dice.random() < DOUBLED else 1):
            if dice.random() >= LOST:
                self.broker.put(shard_id)

    def work(self, seed: int) -> None:
        """Be a worker until the job has ended."""
        dice = seeded(seed)
        while not self.ended.is_set():
            try:
                shard_id = self.broker.get(timeout=0.05)
                lease = self.store.leases.claim(shard_id, owner=f"w{seed}", ttl=TTL)
                if lease is not None:
                    self.compute(lease, dice)
            except (queue.Empty, DatabaseUnavailable):
                continue

    def compute(self, lease: Lease, dice: random.Random) -> None:
        part = part_of(lease)
        pauses = dice.random() < PAUSED or (lease.attempts == 1 and lease.shard_id % 8 == 0)
        if not pauses and dice.random() < DIED:
            return
        try:
            self.store.leases.checkpoint(lease, part_of(lease, tag="checkpoint"))
            if pauses:
                self.wait_for_the_loss_of(lease)
            elif not self.store.leases.renew(lease, rows_done=1, ttl=TTL).goes_on:
                self.store.leases.release(lease)
                return
            self.store.leases.commit(lease, part)
        except Fenced:
            self.fenced.append(lease.shard_id)
            return
        self.acknowledged.append((lease.shard_id, part.path))
        if dice.random() < REDELIVERED:
            self.broker.put(lease.shard_id)

    def wait_for_the_loss_of(self, lease: Lease) -> None:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            shards = self.store.jobs.shards(lease.job_id)
            now = {(shard.id, shard.state, shard.epoch) for shard in shards}
            if (lease.shard_id, ShardState.LEASED, lease.epoch) not in now:
                return
            time.sleep(0.01)

    def coordinate(self, seed: int) -> None:
        """Be a coordinator with a finaliser until the job has ended."""
        dice = seeded(seed)
        while not self.ended.wait(0.02):
            try:
                self.store.leases.reap()
                published = self.store.dispatch.take(MODEL, limit=2 * WORKERS, redispatch_after=TTL)
                for shard_id in published:
                    self.publish(shard_id, dice)
                for job_id in self.store.finalization.finalizable():
                    self.finish(job_id, seed)
            except DatabaseUnavailable:
                continue

    def finish(self, job_id: int, seed: int) -> None:
        final = self.store.finalization.claim(job_id, owner=f"c{seed}", ttl=TTL)
        if final is None:
            return
        try:
            self.store.finalization.complete(
                final, dataset_path=f"e{final.epoch}", manifest_sha256=f"{final.epoch:064}"
            )
        except Fenced:
            return
        self.ended.set()

    def run(self, interrupt: Callable[[], None]) -> None:
        """Let workers and two coordinators loose, and wait for the end of the job."""
        with ThreadPoolExecutor(WORKERS + 2) as threads:
            started = [threads.submit(self.work, SEED + n) for n in range(WORKERS)]
            started += [threads.submit(self.coordinate, SEED + 100 + n) for n in range(2)]
            interrupt()
            wait(started, timeout=PATIENCE, return_when=FIRST_EXCEPTION)
            ended_in_time = self.ended.is_set()
            self.ended.set()
        self.storm.calm.set()
        for thread in started:
            thread.result()
        assert ended_in_time, self.store.jobs.progress(self.job.id)


@pytest.fixture
def storm(watched: Store) -> Storm:
    """Let some COMMITs of every transaction fail, half of them after the server did it."""
    dialect = watched.database.engine.dialect
    error, original = dialect.loaded_dbapi.OperationalError, dialect.do_commit
    dice, storm = seeded(SEED), Storm()

    def do_commit(connection: PoolProxiedConnection) -> None:
        chance = dice.random()
        if chance >= BROKEN_COMMIT or storm.calm.is_set():
            return original(connection)
        moment = "after" if chance < BROKEN_COMMIT / 2 else "before"
        if moment == "after":
            original(connection)
        storm.broken[moment] += 1
        connection.driver_connection.close()  # type: ignore[union-attr]
        raise error("the connection was lost")

    dialect.do_commit = do_commit  # type: ignore[method-assign,assignment]
    return storm


def registered(store: Store) -> list[tuple[int, str]]:
    with store.database.begin_reading() as connection:
        return [tuple(row) for row in connection.execute(select(parts.c.shard_id, parts.c.path))]


def test_every_shard_is_committed_once(watched: Store, storm: Storm) -> None:
    job = running_job(watched, N_ROWS)
    chaos = Chaos(store=watched, job=job, storm=storm)
    chaos.run(interrupt=lambda: None)
    assert watched.jobs.by_id(job.id).state is JobState.COMPLETED
    assert check_tables(watched) == []
    progress = watched.jobs.progress(job.id)
    shards_of_job = len(watched.jobs.shards(job.id))
    assert (progress.committed, progress.rows_done) == (shards_of_job, N_ROWS)
    assert sorted(chaos.acknowledged) == sorted(registered(watched))
    # the storm was one
    assert storm.broken["before"]
    assert storm.broken["after"]
    assert chaos.fenced


def test_a_cancel_in_the_storm_ends_in_order(watched: Store, storm: Storm) -> None:
    job = running_job(watched, N_ROWS)
    chaos = Chaos(store=watched, job=job, storm=storm)

    def cancel() -> None:
        while len(chaos.acknowledged) < 5 and not chaos.ended.wait(0.01):
            continue
        watched.jobs.cancel(job.id)

    chaos.run(interrupt=cancel)
    assert watched.jobs.by_id(job.id).state is JobState.CANCELLED
    assert check_tables(watched) == []
    states = Counter(segment.state for segment in watched.finalization.segments(job.id))
    assert set(states) == {ShardState.COMMITTED, ShardState.STOPPED}
    assert sorted(chaos.acknowledged) == sorted(registered(watched))


def test_one_of_many_claims_wins(watched: Store) -> None:
    job = running_job(watched, 32)
    (only,) = watched.jobs.shards(job.id)
    with ThreadPoolExecutor(8) as threads:
        claims = threads.map(
            lambda n: watched.leases.claim(only.id, owner=f"w{n}", ttl=60.0), range(24)
        )
        leases = [lease for lease in claims if lease is not None]
    assert [lease.epoch for lease in leases] == [1]


def test_one_of_many_commits_wins(watched: Store) -> None:
    job = running_job(watched, 32)
    lease = claim_first(watched, job)

    def commit(n: int) -> bool:
        try:
            watched.leases.commit(lease, part_of(lease, tag=str(n)))
        except Fenced:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(commit, range(24))) == 1
    assert check_tables(watched) == []

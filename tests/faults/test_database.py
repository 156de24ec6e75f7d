"""Faults 21 to 28: databases that go away, answer too late, refuse, or went back in time."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import column, insert, make_url, select, table
from sqlalchemy.exc import IntegrityError

from batchgen.core.states import JobState
from batchgen.database.database import BUSY_TIMEOUT, Database
from batchgen.database.revisions import VERSION_TABLE
from batchgen.database.tables import parts, workers
from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.repair.adoption import Adopter, Outcome
from batchgen.repair.invariants import check_invariants, check_tables
from batchgen_workers import testing
from tests.support.backup import work_between_backup_and_loss
from tests.support.cluster import RECOVERY, ROWS, TTL, Cluster, Toll, running_cluster
from tests.support.jobs import claim_first, commit_all, new_job, part_of, running_job
from tests.support.proxy import Drop, Proxy
from tests.support.servers import PostgresProcess
from tests.support.workers import questions, wait_until

UNAVAILABLE = 3  # exit status
LEASED_ROWS = 40  # two shards
CUTS = 12

# With its end: BEGIN says READ COMMITTED.
COMMIT = b"COMMIT\0"


@pytest.fixture
def postgres_cluster(
    postgres_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> Iterator[Cluster]:
    """An installation on PostgreSQL, for what SQLite does not have."""
    with running_cluster(tmp_path, database_url=postgres_url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        yield cluster


@pytest.fixture
def sqlite_cluster(
    sqlite_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> Iterator[Cluster]:
    """An installation on SQLite, for what PostgreSQL does not have."""
    with running_cluster(tmp_path, database_url=sqlite_url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        yield cluster


@contextmanager
def through_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy in front of the PostgreSQL at `url`, and the URL that goes through it."""
    parsed = make_url(url)
    folder = parsed.query["host"]
    with Proxy(f"{folder}/.s.PGSQL.5432") as proxy:
        near = parsed.difference_update_query(["host"]).set(host="127.0.0.1", port=proxy.port)
        yield proxy, near.render_as_string(hide_password=False)


@pytest.fixture
def far_store(postgres_url: str) -> Iterator[tuple[Store, Proxy]]:
    """A store whose connections can be cut, and what cuts them."""
    with through_proxy(postgres_url) as (proxy, url), closing(Store(Database(url))) as store:
        yield store, proxy


@pytest.mark.fault(21, "PostgreSQL stopped at once and restarted, three times")
def test_21_the_database_dies_under_claims_and_commits(
    own_cluster: Cluster, own_postgres: PostgresProcess
) -> None:
    own_cluster.coordinator()
    for _ in range(2):
        own_cluster.worker()
    for _ in range(3):
        own_cluster.brake.after(20)
        job = own_cluster.submit()
        own_cluster.await_done(job, 20)
        own_postgres.stop_at_once()
        own_cluster.brake.release()
        time.sleep(TTL / 2)  # what is down must be down for a while
        own_postgres.start()
        own_cluster.hurt()
        own_cluster.drain(job)
    own_cluster.toll.assert_within(RECOVERY + 10.0)
    assert all(member.is_alive for member in own_cluster.members)


@pytest.mark.fault(21, "PostgreSQL away for longer than the leases last")
def test_21_work_goes_on_while_the_database_is_away(
    own_cluster: Cluster, own_postgres: PostgresProcess
) -> None:
    own_cluster.coordinator()
    own_cluster.brake.after(1)
    worker = own_cluster.worker()
    job = own_cluster.submit(LEASED_ROWS)
    own_cluster.await_done(job, 1)
    own_postgres.stop_at_once()
    own_cluster.brake.release()
    wait_until(lambda: worker.said("a commit"))  # every row of a shard is computed, and waits
    own_postgres.start()
    own_cluster.hurt()
    own_cluster.drain(job)  # the reaper may be faster than the commit, or not
    own_cluster.toll.assert_within(RECOVERY)


def submitting(store: Store, job: JobRecord) -> Iterator[None]:
    yield
    submitted = store.jobs.submit(new_job(40))
    assert [found.id for found in store.jobs.list()] == [submitted.id, job.id]


def claiming(store: Store, job: JobRecord) -> Iterator[None]:
    """A claim is not made again: if it was lost, its lease runs out."""
    shard = store.jobs.shards(job.id)[0]
    yield
    with pytest.raises(DatabaseUnavailable):
        store.leases.claim(shard.id, owner="host/1", ttl=0.0)
    store.leases.reap()
    assert store.leases.claim(shard.id, owner="host/1", ttl=60.0) is not None


def saving(store: Store, job: JobRecord) -> Iterator[None]:
    lease = claim_first(store, job)
    former, part = part_of(lease, tag="former"), part_of(lease, tag="saved")
    store.leases.checkpoint(lease, former)
    yield
    # never the one that counts
    assert store.leases.checkpoint(lease, part) in (former.path, None)
    saved = store.leases.checkpoint_of(lease.shard_id)
    assert saved is not None
    assert saved.path == part.path


def committing(store: Store, job: JobRecord) -> Iterator[None]:
    lease = claim_first(store, job)
    part = part_of(lease)
    yield
    store.leases.commit(lease, part)
    with store.database.begin_reading() as connection:
        assert connection.execute(select(parts.c.path)).scalars().all() == [part.path]


def releasing(store: Store, job: JobRecord) -> Iterator[None]:
    lease = claim_first(store, job)
    yield
    store.leases.release(lease)
    again = store.leases.claim(lease.shard_id, owner="host/1", ttl=60.0)
    assert again is not None
    assert (again.epoch, again.lost) == (lease.epoch + 1, 0)


def completing(store: Store, job: JobRecord) -> Iterator[None]:
    commit_all(store, job)
    store.finalization.finalizable()
    final = store.finalization.claim(job.id, owner="host/1", ttl=60.0)
    assert final is not None
    yield
    ended = store.finalization.complete(final, dataset_path="datasets/1", manifest_sha256="f" * 64)
    assert ended.state is JobState.COMPLETED


@pytest.mark.fault(22, "connection cut at COMMIT: sent and the reply lost, and not sent")
@pytest.mark.parametrize("drop", Drop)
@pytest.mark.parametrize("step", [submitting, claiming, saving, committing, releasing, completing])
def test_22_an_unknown_outcome_is_read_and_never_guessed(
    far_store: tuple[Store, Proxy],
    step: Callable[[Store, JobRecord], Iterator[None]],
    drop: Drop,
    toll: Toll,
) -> None:
    store, proxy = far_store
    steps = step(store, running_job(store, 40))
    next(steps)
    proxy.on_bytes(COMMIT, drop)
    next(steps, None)
    assert proxy.dropped == 1
    assert check_tables(store) == []
    toll.injections += 1


@pytest.mark.fault(22, "connections of two workers cut at COMMIT, again and again")
@pytest.mark.parametrize("drop", Drop)
def test_22_workers_whose_commits_get_lost(postgres_cluster: Cluster, drop: Drop) -> None:
    cluster = postgres_cluster
    with through_proxy(cluster.settings.database_url) as (proxy, url):
        cluster.coordinator()
        workers = [cluster.worker(testing.SLOW, database_url=url) for _ in range(2)]
        wait_until(lambda: all(worker.said("listening") for worker in workers))
        jobs: list[JobRecord] = []
        while cluster.toll.injections < CUTS:
            if not jobs or cluster.done(jobs[-1]) == ROWS:  # how far one lasts is the machine's
                jobs.append(cluster.submit(questions(ROWS, max_tokens=10)))
            before = proxy.dropped
            proxy.on_bytes(COMMIT, drop)
            wait_until(lambda before=before: proxy.dropped > before)  # type: ignore[misc]
            cluster.hurt()
            time.sleep(0.3)  # in which something may succeed
        proxy.heal()
        for job in jobs:
            cluster.drain(job)


@pytest.mark.fault(22, "a second part of one shard, whatever else went wrong")
def test_22_a_shard_has_one_part_whoever_writes_it(store: Store) -> None:
    job = running_job(store, 10)
    lease = claim_first(store, job)
    store.leases.commit(lease, part_of(lease))
    with store.database.begin_reading() as connection:
        (row,) = connection.execute(select(parts)).mappings()
    with pytest.raises(IntegrityError), store.database.begin() as connection:
        connection.execute(insert(parts).values({**row, "path": "another"}))


@pytest.mark.fault(23, "the database out of reach of one worker for longer than its lease")
@pytest.mark.parametrize("toxic", [Proxy.cut, Proxy.freeze], ids=["refused", "frozen"])
def test_23_who_comes_back_after_its_lease_is_fenced(
    postgres_cluster: Cluster, toxic: Callable[[Proxy], None]
) -> None:
    cluster = postgres_cluster
    with through_proxy(cluster.settings.database_url) as (proxy, url):
        cluster.coordinator()
        cluster.brake.after(10)
        far = cluster.worker(database_url=url)
        job = cluster.submit()
        cluster.await_done(job, 10)
        toxic(proxy)
        cluster.hurt()
        cluster.brake.release()
        cluster.worker()
        cluster.drain(job)
        proxy.heal()
        wait_until(lambda: far.said("shard fenced"))
        cluster.check()
        cluster.drain(cluster.submit(50))
        assert far.is_alive


@pytest.mark.fault(24, "deadlocks, cancelled statements, ended sessions, rows kept locked")
@pytest.mark.parametrize("trouble", ["deadlock", "cancel", "terminate", "lock"])
def test_24_what_the_database_rolls_back_is_done_again(
    postgres_cluster: Cluster, trouble: str
) -> None:
    cluster = postgres_cluster
    cluster.coordinator()
    for _ in range(2):
        cluster.worker(testing.SLOW)
    job = cluster.submit(questions(ROWS, max_tokens=20))
    cluster.await_done(job, 10)
    url = make_url(cluster.settings.database_url).set(drivername="postgresql")
    conninfo = url.render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as side:
        for _ in range(3):
            TROUBLES[trouble](side, job)
            cluster.hurt()
        if trouble == "deadlock":
            wait_until(lambda: side.execute(DEADLOCKS).fetchone() != (0,))
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY + 10.0)


def deadlock(side: psycopg.Connection, job: JobRecord) -> None:
    """Lock the shards, wait for a commit that has locked the job and wants one, want the job."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    deadline = time.monotonic() + 4.0
    with suppress(psycopg.errors.DeadlockDetected), side.transaction():
        side.execute("SELECT id FROM shards WHERE job_id = %s FOR UPDATE", [job.id])
        while not side.execute(waiting, ["UPDATE shards SET state=%"]).fetchone():
            side.execute("SELECT pg_stat_clear_snapshot()")
            if time.monotonic() > deadline:
                return  # none of the job's shards is left
            time.sleep(0.01)
        side.execute("UPDATE jobs SET priority = priority WHERE id = %s", [job.id])


def cancel(side: psycopg.Connection, job: JobRecord) -> None:
    """End whatever statement runs, as a statement_timeout does."""
    for _ in range(20):
        side.execute(f"SELECT pg_cancel_backend(pid) {OTHERS}")
        time.sleep(0.01)


def terminate(side: psycopg.Connection, job: JobRecord) -> None:
    """End every session."""
    side.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
    time.sleep(0.3)  # they come back, and are ended again


def lock(side: psycopg.Connection, job: JobRecord) -> None:
    """Keep the rows locked for longer than a renewal can wait."""
    with side.transaction():
        side.execute("SELECT id FROM shards WHERE job_id = %s FOR UPDATE", [job.id])
        time.sleep(TTL / 2)


DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
OTHERS = "FROM pg_stat_activity WHERE application_name = 'batchgen'"
TROUBLES = {"deadlock": deadlock, "cancel": cancel, "terminate": terminate, "lock": lock}


@pytest.mark.fault(24, "too many connections")
def test_24_no_connection_to_be_had(own_cluster: Cluster, own_postgres: PostgresProcess) -> None:
    cluster = own_cluster
    cluster.coordinator()
    cluster.brake.after(10)
    worker = cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    with ExitStack() as hogs, psycopg.connect(own_postgres.url, autocommit=True) as side:
        with suppress(psycopg.OperationalError):
            while True:
                hogs.enter_context(psycopg.connect(own_postgres.url))
        side.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
        with suppress(psycopg.OperationalError):
            while True:
                hogs.enter_context(psycopg.connect(own_postgres.url))
        cluster.hurt()
        wait_until(lambda: worker.said("too many clients"))
    cluster.brake.release()
    cluster.hurt()
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY)


@pytest.mark.fault(25, "another program keeps the SQLite file locked")
@pytest.mark.parametrize("seconds", [2 * TTL, pytest.param(20.0, marks=pytest.mark.long)])
def test_25_everybody_waits_for_the_file(sqlite_cluster: Cluster, seconds: float) -> None:
    assert seconds < BUSY_TIMEOUT
    cluster = sqlite_cluster
    cluster.coordinator()
    cluster.brake.after(10)
    workers = [cluster.worker() for _ in range(2)]
    job = cluster.submit()
    cluster.await_done(job, 10)
    file = cluster.store.database.file
    assert file is not None
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30.0)) as other:
        other.execute("BEGIN EXCLUSIVE")
        cluster.brake.release()
        time.sleep(seconds)
        other.execute("ROLLBACK")
    cluster.hurt()
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY)
    assert all(worker.is_alive for worker in workers)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_header(data: bytes) -> bytes:
    return bytes(100) + data[100:]


def overwritten(data: bytes) -> bytes:
    """Keep the first page, which has the schema's names."""
    return data[:4096] + bytes(byte ^ 0x5A for byte in data[4096:])


def of_another_program(data: bytes) -> bytes:
    return b"This is not a database. " * 1000


@pytest.mark.fault(26, "the SQLite file truncated or damaged")
@pytest.mark.parametrize("harm", [truncated, without_header, overwritten, of_another_program])
def test_26_a_damaged_file_is_refused_and_left_as_it_is(
    sqlite_cluster: Cluster, harm: Callable[[bytes], bytes]
) -> None:
    cluster = sqlite_cluster
    cluster.submit(20)
    cluster.store.close()
    file = cluster.store.database.file
    assert file is not None
    whole = file.read_bytes()
    damaged = harm(whole)
    file.write_bytes(damaged)
    cluster.hurt()
    for member in (cluster.coordinator(), cluster.worker()):
        assert member.wait() == UNAVAILABLE
        assert member.said("damaged")
        assert member.said("Restore it from a backup")
    with pytest.raises(DatabaseUnavailable, match="Restore it from a backup"):
        cluster.submit(20)
    assert file.read_bytes() == damaged
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    file.write_bytes(whole)
    cluster.coordinator()
    cluster.worker()
    (job,) = cluster.store.jobs.list()
    cluster.drain(job)


@pytest.mark.fault(26, "a schema newer than the code")
def test_26_a_newer_schema_is_refused(cluster: Cluster) -> None:
    with cluster.store.database.begin() as connection:
        versions = table(VERSION_TABLE, column("version_num"))
        connection.execute(versions.update().values(version_num="9999"))
    cluster.hurt()
    for member in (cluster.coordinator(), cluster.worker()):
        assert member.wait() == UNAVAILABLE
        assert member.said("Upgrade batchgen on this machine")
    with cluster.store.database.begin() as connection:
        assert connection.execute(select(workers)).all() == []


@pytest.mark.fault(27, "two coordinators on one SQLite home")
def test_27_the_second_coordinator_of_a_home_leaves(sqlite_cluster: Cluster) -> None:
    cluster = sqlite_cluster
    first = cluster.coordinator()
    wait_until(lambda: first.said("coordinating"))
    second = cluster.coordinator()
    assert second.wait() == UNAVAILABLE
    assert second.said("Another coordinator runs on")
    first.kill()
    cluster.hurt()
    cluster.coordinator()
    cluster.worker()
    cluster.drain(cluster.submit())


@pytest.mark.fault(28, "SQL restored from an older backup")
@pytest.mark.parametrize("way", ["adopted", "computed again"])
def test_28_a_database_that_went_back_in_time(cluster: Cluster, way: str) -> None:
    job, backup = work_between_backup_and_loss(cluster)
    committed = cluster.store.jobs.progress(job.id).committed
    backup.restore()
    cluster.hurt()
    assert cluster.store.jobs.progress(job.id).committed < committed
    if way == "adopted":
        findings = Adopter(cluster.store, cluster.storage).adopt()
        found = Counter(finding.outcome for finding in findings)
        assert found[Outcome.ADOPTED] >= 1
        # and parts that were complete when their worker died, just before their commit
        assert cluster.store.jobs.progress(job.id).committed >= committed
        assert check_invariants(cluster.store, cluster.storage) == []
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)


@pytest.mark.fault(28, "SQL restored while a worker sleeps with a lease of the lost time")
def test_28_a_lease_of_a_time_that_never_was(cluster: Cluster) -> None:
    job, backup = work_between_backup_and_loss(cluster)
    sleeper = cluster.worker(failpoint="part.committing=stop:1")
    cluster.coordinator()
    cluster.await_held(sleeper)
    cluster.members[-1].kill()
    backup.restore()
    cluster.hurt()
    list(Adopter(cluster.store, cluster.storage).adopt())
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)
    wait_until(lambda: sleeper.wakes_up_until("shard fenced"))
    sleeper.kill()  # it may be stopped anew, this time with SQLite's lock
    cluster.check()

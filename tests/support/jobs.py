"""Jobs, leases and parts for tests, made through the store, and the hands of its clock."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select, update

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import KVTotals
from batchgen.core.states import JobState, ShardState
from batchgen.database.database import Database, now_db
from batchgen.database.tables import jobs, parts, shards, workers
from batchgen.dataset.parts import PartInfo
from batchgen.jobs.records.job_records import JobRecord, Lease, NewJob, PartRecord, ShardRecord
from batchgen.jobs.records.part_rows import unregister
from batchgen.jobs.store import Store

TTL = 60.0  # seconds
OWNER = "host/1"
MODEL = "tiny"

_numbers = itertools.count()


def new_job(n_rows: int = 100, **fields: Any) -> NewJob:
    """Return a submission of an input that no other test has."""
    sha256 = hashlib.sha256(f"input {next(_numbers)}".encode()).hexdigest()
    job = NewJob(
        input_sha256=sha256,
        input_bytes=n_rows * 100,
        n_rows=n_rows,
        model=MODEL,
        model_sha256="0" * 64,
    )
    return replace(job, **fields)


def running_job(store: Store, n_rows: int = 100, **fields: Any) -> JobRecord:
    """Submit a job and start it."""
    job = store.jobs.submit(new_job(n_rows, **fields))
    store.dispatch.start_due()
    return store.jobs.by_id(job.id)


def claim_first(store: Store, job: JobRecord) -> Lease:
    """Claim the first shard of a job that can be."""
    for shard in store.jobs.shards(job.id):
        lease = store.leases.claim(shard.id, owner=OWNER, ttl=TTL)
        if lease is not None:
            return lease
    raise AssertionError("no shard could be claimed")


def lease_without_store(**fields: Any) -> Lease:
    """Return a lease on rows 0 to 7 of a job that no store has."""
    lease = Lease(
        shard_id=5,
        epoch=2,
        owner=OWNER,
        job_id=1,
        job_public_id="0" * 32,
        tenant_id="local",
        pos_start=0,
        pos_end=8,
        attempts=2,
        lost=1,
        deaths=0,
        input_sha256="a" * 64,
        index_path=None,
        model=MODEL,
        model_sha256="b" * 64,
        params={},
    )
    return replace(lease, **fields)


def part_of(lease: Lease, *, n_err: int = 0, tag: str = "", utilisation: float = 0.75) -> PartInfo:
    """Return what a worker says of the part it wrote under a lease."""
    key = f"parts/{lease.job_public_id}/{lease.seq}.e{lease.epoch}.{tag or next(_numbers)}.parquet"
    return PartInfo(
        path=key,
        n_rows=lease.n_rows,
        n_ok=lease.n_rows - n_err,
        n_err=n_err,
        bytes=1000,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        prompt_tokens=7 * lease.n_rows,
        completion_tokens=3 * lease.n_rows,
        cached_tokens=2 * lease.n_rows,
        kv=KVTotals(
            rows=lease.n_rows - n_err,
            preemptions=5,
            copies=4 * lease.n_rows,
            utilisation=utilisation,
            sharing_saving=0.25,
        ),
        finish_reasons=FinishReasons(stop=lease.n_rows - n_err - 1, length=1),
    )


def commit_all(store: Store, job: JobRecord) -> None:
    """Claim and commit every shard of a running job."""
    for shard in store.jobs.shards(job.id):
        lease = store.leases.claim(shard.id, owner=OWNER, ttl=TTL)
        if lease is not None:
            store.leases.commit(lease, part_of(lease))


def shard(store: Store, shard_id: int) -> ShardRecord:
    """Return a shard as the database has it."""
    with store.database.begin_reading() as connection:
        row = connection.execute(select(shards).where(shards.c.id == shard_id)).one()
    return ShardRecord.from_row(row)


def count_parts(store: Store, job: JobRecord) -> int:
    """Return how many parts a job has."""
    with store.database.begin_reading() as connection:
        query = select(func.count()).select_from(parts).where(parts.c.job_id == job.id)
        return int(connection.execute(query).scalar_one())


def set_shard(store: Store, shard_id: int, **values: Any) -> None:
    """Change a shard behind the store's back."""
    with store.database.begin() as connection:
        connection.execute(update(shards).where(shards.c.id == shard_id).values(**values))


def forget_part(store: Store, shard_id: int, *, epoch: int = 0) -> None:
    """Take a commit and the claims before it back, as an older backup of the database would."""
    with store.database.begin() as connection:
        row = connection.execute(select(parts).where(parts.c.shard_id == shard_id)).one()
        assert unregister(connection, PartRecord(**row._mapping))
    set_shard(store, shard_id, state="ready", epoch=epoch, attempts=epoch, rows_done=0)


def set_job(store: Store, job_id: int, **values: Any) -> None:
    """Change a job behind the store's back."""
    with store.database.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def move_clock(store: Store, seconds: float) -> None:
    """Move the database's clock: every moment that it has written is as much further behind.

    Negative: it is set back, and they lie ahead. What users chose stays where it is.
    """
    moments = (
        *(shards.c.lease_expires_at, shards.c.enqueued_at),
        *(jobs.c.created_at, jobs.c.started_at, jobs.c.finalizing_at, jobs.c.final_expires_at),
        *(parts.c.committed_at, workers.c.started_at, workers.c.heartbeat_at),
    )
    with store.database.begin() as connection:
        for moment in moments:
            connection.execute(update(moment.table).values({moment.name: moment - seconds}))
        kept_back = update(shards).where(shards.c.not_before > 0.0)
        connection.execute(kept_back.values(not_before=shards.c.not_before - seconds))


def let_expire(store: Store, lease: Lease) -> None:
    """Let the lease run out without waiting for it."""
    set_shard(store, lease.shard_id, lease_expires_at=now_db() - 1.0)


def database_now(database: Database) -> float:
    """Return the database's clock."""
    with database.begin_reading() as connection:
        return database.now(connection)


def window_around(now: float, *, opens: float, closes: float) -> str:
    """Return a UTC window from `now + opens` to `now + closes` (seconds)."""

    def clock(moment: float) -> str:
        minutes = int(moment // 60) % 1440
        return f"{minutes // 60:02}:{minutes % 60:02}"

    return f"{clock(now + opens)}-{clock(now + closes)} UTC"


def states_of(store: Store, job: JobRecord) -> list[ShardState]:
    """Return the states of a job's leaf shards in input order."""
    return [record.state for record in store.jobs.shards(job.id)]


def state_of(store: Store, job: JobRecord) -> JobState:
    """Return the state a job is in now."""
    return store.jobs.by_id(job.id).state

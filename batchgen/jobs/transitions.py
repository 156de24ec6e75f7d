"""Change the state of jobs as the table of transitions allows, inside the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from batchgen.core.states import TRANSITIONS, JobState, ShardState, StopReason
from batchgen.database.batch_tables import batches
from batchgen.database.clock import now_after_parts
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, shard_is, shards, storable
from batchgen.errors import JobNotFound, NotAllowed
from batchgen.jobs.records.job_records import JobRecord
from batchgen.tenants import usage
from batchgen.webhooks import outbox


def lock_job(connection: Connection, job_id: int) -> JobRecord:
    """Return the job and lock its row until the transaction ends.

    Every transaction locks the job before its shards, so that there is no deadlock.
    """
    found = connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise JobNotFound
    return JobRecord.from_row(row)


def move(connection: Connection, job: JobRecord, to: JobState, **values: Any) -> JobRecord:
    """Move a locked job to another state and return it; raise NotAllowed.

    If the state is final, the same transaction adds the job to the usage of its tenant, and
    announces its end to the tenant's webhooks.
    """
    if to not in TRANSITIONS[job.state]:
        raise NotAllowed(f"Job {job.public_id} is {job.state}; it cannot become {to}.")
    if to.ended:
        values.setdefault("ended_at", now_db())
    changed = connection.execute(
        update(jobs).where(jobs.c.id == job.id).values(state=to, **values).returning(jobs)
    )
    moved = JobRecord.from_row(changed.one())
    if to.ended:
        outbox.announce_job(connection, moved.tenant_id, moved.public_id, to)
        count_usage(connection, moved)
    return moved


def count_usage(connection: Connection, job: JobRecord) -> None:
    """Add a locked job to the usage of its tenant; call it where the job ends, and only there."""
    usage.add_job(
        connection, job_id=job.id, tenant=job.tenant_id, key_id=job.key_id, model=job.model
    )


def stop(connection: Connection, job: JobRecord, reason: StopReason) -> JobRecord:
    """Move a locked job to stopping. The worker or the reaper ends each of its leased shards."""
    stopped = move(connection, job, JobState.STOPPING, stop_reason=reason, paused=False)
    if reason is StopReason.CANCEL:
        of_job = update(batches).where(batches.c.job_id == job.id)
        connection.execute(of_job.values(cancelling_at=now_db()))
    stop_ready_shards(connection, job.id)
    return stopped


def fail(connection: Connection, job: JobRecord, error: str) -> JobRecord:
    """Move a locked job to failed, for a reason that a repetition would not fix."""
    failed = move(
        connection,
        job,
        JobState.FAILED,
        error=storable(error),
        paused=False,
        ended_at=now_after_parts(),
    )
    stop_ready_shards(connection, job.id)
    return failed


def stop_ready_shards(connection: Connection, job_id: int) -> None:
    """Stop the shards of a job that are not leased."""
    connection.execute(
        update(shards)
        .where(shards.c.job_id == job_id, shard_is(ShardState.READY))
        .values(state=ShardState.STOPPED, enqueued_at=None)
    )

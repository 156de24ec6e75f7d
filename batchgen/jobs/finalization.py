"""Finalization: the lease to write a job's dataset, and the end of the job."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, or_, select, update

from batchgen.core.states import OUTCOME, JobState, ShardState
from batchgen.database.clock import ends_again, is_overlong, now_after_parts
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, parts, shard_is, shards, storable
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.errors import Corrupt, Fenced, JobNotFound
from batchgen.jobs import transitions
from batchgen.jobs.records import saved_segments
from batchgen.jobs.records.job_records import (
    FinalLease,
    JobRecord,
    PartRecord,
    SavedSegment,
    SegmentRecord,
)

JobIds = list[int]
Segments = list[SegmentRecord]
SavedSegments = list[SavedSegment]


class FinalizationManager(Manager):
    """The transactions of the finaliser, fenced by the job's own epoch."""

    @repeatable
    def finalizable(self, connection: Connection) -> JobIds:
        """Return the jobs whose dataset can be written and that no live finaliser holds.

        First, move running and stopping jobs that have no ready and no leased shard to finalizing;
        their shards cannot become ready or leased again. If the clock was set back and a final
        lease would last too long, shorten it to its normal length from now.
        """
        open_leaf = (
            select(shards.c.id)
            .where(shards.c.job_id == jobs.c.id, shard_is(ShardState.READY, ShardState.LEASED))
            .correlate(jobs)
            .exists()
        )
        connection.execute(
            update(jobs)
            .where(jobs.c.state.in_((JobState.RUNNING, JobState.STOPPING)), ~open_leaf)
            .values(state=JobState.FINALIZING, paused=False, finalizing_at=now_after_parts())
        )
        overlong = is_overlong(jobs.c.final_expires_at, jobs.c.final_seconds)
        connection.execute(
            update(jobs)
            .where(jobs.c.state == JobState.FINALIZING, overlong)
            .values(final_expires_at=ends_again(jobs.c.final_seconds))
        )
        unheld = select(jobs.c.id).where(
            jobs.c.state == JobState.FINALIZING,
            or_(jobs.c.final_owner.is_(None), jobs.c.final_expires_at < now_db()),
        )
        return list(connection.execute(unheld.order_by(jobs.c.finalizing_at)).scalars())

    @transaction
    def claim(
        self, connection: Connection, job_id: int, *, owner: str, ttl: float
    ) -> FinalLease | None:
        """Lease the writing of a job's dataset for `ttl` seconds; return None if it is not free."""
        claimed = connection.execute(
            update(jobs)
            .where(
                jobs.c.id == job_id,
                jobs.c.state == JobState.FINALIZING,
                or_(jobs.c.final_owner.is_(None), jobs.c.final_expires_at < now_db()),
            )
            .values(
                final_epoch=jobs.c.final_epoch + 1,
                final_owner=f"{owner}/{uuid.uuid4().hex}",
                final_expires_at=now_db() + ttl,
                final_seconds=ttl,
            )
            .returning(jobs)
        ).one_or_none()
        if claimed is None:
            return None
        job = JobRecord.from_row(claimed)
        return FinalLease(epoch=job.final_epoch, owner=claimed.final_owner, job=job)

    @repeatable
    def renew(self, connection: Connection, final: FinalLease, *, ttl: float) -> None:
        """Extend the lease to `ttl` seconds from now; raise Fenced."""
        renewed = connection.execute(
            update(jobs)
            .where(_held(final))
            .values(final_expires_at=now_db() + ttl, final_seconds=ttl)
        )
        if not renewed.rowcount:
            raise Fenced

    @repeatable
    def release(
        self, connection: Connection, final: FinalLease, *, error: str | None = None
    ) -> None:
        """Give up the lease for now (for example: disk full) and store why; raise Fenced."""
        released = connection.execute(
            update(jobs)
            .where(_held(final))
            .values(
                final_owner=None,
                final_expires_at=None,
                error=None if error is None else storable(error),
            )
        )
        if not released.rowcount:
            raise Fenced

    @reading
    def segments(self, connection: Connection, job_id: int) -> Segments:
        """Return the leaf shards of a job in input order, each with its part if it has one."""
        return _segments(connection, job_id)

    @reading
    def saved(
        self, connection: Connection, job_id: int, *, start: int, only_failed: bool = False
    ) -> SavedSegments:
        """Return the next parts and checkpoints of a job that reach beyond position `start`.

        They are in input order, and at most SAVED_TOGETHER; one statement reads them, so that a
        shard committed meanwhile is among them once. With `only_failed` parts that have no error
        row are left out.
        """
        return saved_segments.read(connection, job_id, start=start, only_failed=only_failed)

    @repeatable
    def complete(
        self,
        connection: Connection,
        final: FinalLease,
        *,
        dataset_path: str,
        manifest_sha256: str,
    ) -> JobRecord:
        """End a job whose dataset is durable, as completed, cancelled or expired.

        The same transaction checks that the leaves tile the input, and that parts hold every row
        that was not stopped, so a partial result cannot pass as complete. Raises Corrupt if they
        do not, Fenced if another finaliser has taken over.
        """
        try:
            job = transitions.lock_job(connection, final.job.id)
        except JobNotFound:  # the job was removed after the lease ran out
            raise Fenced from None
        if job.final_epoch != final.epoch:
            raise Fenced
        if job.state.ended and job.manifest_sha256 == manifest_sha256:
            return job  # an earlier run of this transaction committed; its answer was lost
        if job.state is not JobState.FINALIZING:
            raise Fenced
        check_tiled(job, _segments(connection, job.id))
        return transitions.move(
            connection,
            job,
            OUTCOME[job.stop_reason],
            dataset_path=dataset_path,
            manifest_sha256=manifest_sha256,
            final_owner=None,
            final_expires_at=None,
            error=None,
        )


def check_tiled(job: JobRecord, segments: Segments) -> None:
    """Raise Corrupt unless the segments are final and cover each row of the input once."""
    position = 0
    for segment in segments:
        if segment.pos_start != position:
            raise _untiled(job, f"a shard begins at {segment.pos_start}, not at {position}")
        position = segment.pos_end
        length = segment.pos_end - segment.pos_start
        if segment.state is ShardState.COMMITTED:
            if segment.part is None or segment.part.n_rows != length:
                raise _untiled(job, f"the part of rows {segment.pos_start}… is missing or short")
        elif segment.state is not ShardState.STOPPED or job.stop_reason is None:
            raise _untiled(job, f"the shard of rows {segment.pos_start}… is {segment.state}")
    if position != job.n_positions:
        raise _untiled(job, f"its shards end at {position} of {job.n_positions}")


def _untiled(job: JobRecord, what: str) -> Corrupt:
    return Corrupt(f"Job {job.public_id} cannot be completed: {what}. Run `batchgen fsck`.")


def _held(final: FinalLease) -> ColumnElement[bool]:
    return and_(
        jobs.c.id == final.job.id,
        jobs.c.final_epoch == final.epoch,
        jobs.c.final_owner == final.owner,
        jobs.c.state == JobState.FINALIZING,
    )


def _segments(connection: Connection, job_id: int) -> Segments:
    return [_segment(row) for row in connection.execute(_leaves(job_id))]


def _leaves(job_id: int) -> Select[Any]:
    return (
        select(shards.c.pos_start, shards.c.pos_end, shards.c.state.label("shard_state"), parts)
        .outerjoin(parts, parts.c.shard_id == shards.c.id)
        .where(shards.c.job_id == job_id, shards.c.state != ShardState.SPLIT)
        .order_by(shards.c.pos_start)
    )


def _segment(row: Row[Any]) -> SegmentRecord:
    part = None
    if row.shard_id is not None:
        part = PartRecord(**{column.name: row._mapping[column.name] for column in parts.c})
    return SegmentRecord(
        pos_start=row.pos_start,
        pos_end=row.pos_end,
        state=ShardState(row.shard_state),
        part=part,
    )

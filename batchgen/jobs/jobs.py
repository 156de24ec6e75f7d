"""Jobs: submit, find, list, watch, pause, stop, remove."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Row,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    update,
)

from batchgen.errors import JobNotFound, NotAllowed
from batchgen.io.kv_totals import UNMEASURED, KVTotals
from batchgen.jobs import moves, submission
from batchgen.jobs.records import (
    LOCAL_TENANT,
    JobRecord,
    NewJob,
    Progress,
    RemovedJob,
    ShardRecord,
)
from batchgen.jobs.states import JobState, ShardState, StopReason
from batchgen.jobs.tables import checkpoints, inputs, jobs, parts, shards
from batchgen.jobs.transactions import Manager, reading, repeatable, transaction

PAUSABLE = (JobState.QUEUED, JobState.RUNNING)

_REFERENCE = re.compile(r"[0-9a-f]{4,32}")

# JobManager.list would hide the type inside its own class
JobRecords = list[JobRecord]
ShardRecords = list[ShardRecord]


def _total(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Sum a column as an integer: PostgreSQL sums BIGINT as NUMERIC, which is Decimal here."""
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def _over_rows(mean: ColumnElement[Any]) -> ColumnElement[float]:
    """Sum a mean of each part over the part's answered rows."""
    return func.coalesce(func.sum(mean * parts.c.n_ok), 0.0, type_=Double())


# Shards and parts in one statement, so that a commit is seen in both or in neither.
_PROGRESS = (
    select(
        shards.c.state,
        func.count().label("n"),
        _total(shards.c.n_rows).label("n_rows"),
        _total(shards.c.rows_done).label("rows_reported"),
        _total(parts.c.n_rows).label("rows_committed"),
        _total(parts.c.n_ok).label("n_ok"),
        _total(parts.c.n_err).label("n_err"),
        _total(parts.c.prompt_tokens).label("prompt_tokens"),
        _total(parts.c.completion_tokens).label("completion_tokens"),
        _total(parts.c.cached_tokens).label("cached_tokens"),
        _total(parts.c.preemptions).label("preemptions"),
        _total(parts.c.copies).label("copies"),
        _total(case((parts.c.kv_utilisation.is_not(None), parts.c.n_ok))).label("kv_rows"),
        _over_rows(parts.c.kv_utilisation).label("kv_utilisation"),
        _over_rows(parts.c.sharing_saving).label("sharing_saving"),
    )
    .select_from(shards)
    .outerjoin(parts, parts.c.shard_id == shards.c.id)
    .where(shards.c.job_id == bindparam("job_id"), shards.c.state != ShardState.SPLIT)
    .group_by(shards.c.state)
)


class JobManager(Manager):
    """The transactions on whole jobs. Ids are internal; `get` finds one by its public id."""

    def submit(self, new: NewJob) -> JobRecord:
        """Store a job and all of its shards; once this returns, the job survives anything.

        Two submits with one `idem_key` are one job: the second returns it, or raises NotAllowed
        where it asks for other work. Raises InvalidParameter.
        """
        return self._submit(submission.check_new(new))

    @repeatable
    def _submit(self, connection: Connection, new: NewJob) -> JobRecord:
        return submission.submit(connection, new, self.database.now(connection))

    @reading
    def get(self, connection: Connection, ref: str, *, tenant: str = LOCAL_TENANT) -> JobRecord:
        """Return the job with this public id, or a unique beginning or end of one (4 digits up).

        Raises JobNotFound.
        """
        if _REFERENCE.fullmatch(ref) is None:
            raise JobNotFound(f"{ref!r} is not a job id. See `batchgen ls`.")
        public_id = jobs.c.public_id
        matches = or_(public_id.startswith(ref), public_id.endswith(ref))
        found = connection.execute(
            select(jobs).where(jobs.c.tenant_id == tenant, matches).limit(2)
        ).all()
        if not found:
            raise JobNotFound(f"No job {ref}. See `batchgen ls`.")
        if len(found) > 1:
            raise JobNotFound(f"{ref} names more than one job. Write more of the id.")
        return JobRecord.from_row(found[0])

    @reading
    def by_id(self, connection: Connection, job_id: int) -> JobRecord:
        """Return the job with this internal id; raise JobNotFound."""
        row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFound
        return JobRecord.from_row(row)

    @reading
    def list(
        self,
        connection: Connection,
        *,
        tenant: str = LOCAL_TENANT,
        states: Collection[JobState] | None = None,
        limit: int = 50,
        before_id: int | None = None,
    ) -> JobRecords:
        """Return jobs, newest first; `before_id` (an internal id) asks for the next page."""
        query = select(jobs).where(jobs.c.tenant_id == tenant)
        if states is not None:
            query = query.where(jobs.c.state.in_(states))
        if before_id is not None:
            query = query.where(jobs.c.id < before_id)
        rows = connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))
        return [JobRecord.from_row(row) for row in rows]

    @reading
    def shards(self, connection: Connection, job_id: int) -> ShardRecords:
        """Return the leaf shards of a job in input order."""
        leaves = select(shards).where(shards.c.job_id == job_id, shards.c.state != ShardState.SPLIT)
        rows = connection.execute(leaves.order_by(shards.c.pos_start))
        return [ShardRecord.from_row(row) for row in rows]

    @reading
    def progress(self, connection: Connection, job_id: int) -> Progress:
        """Return how far a job is: one statement over its shards and parts, none over rows."""
        groups = connection.execute(_PROGRESS, {"job_id": job_id}).all()
        counts = {group.state: group.n for group in groups}
        return Progress(
            ready=counts.get(ShardState.READY, 0),
            leased=counts.get(ShardState.LEASED, 0),
            committed=counts.get(ShardState.COMMITTED, 0),
            stopped=counts.get(ShardState.STOPPED, 0),
            n_rows=sum(group.n_rows for group in groups),
            rows_done=sum(_rows_done(group.state, group) for group in groups),
            rows_ok=sum(group.n_ok for group in groups),
            rows_err=sum(group.n_err for group in groups),
            prompt_tokens=sum(group.prompt_tokens for group in groups),
            completion_tokens=sum(group.completion_tokens for group in groups),
            cached_tokens=sum(group.cached_tokens for group in groups),
            kv=sum((_kv(group) for group in groups), UNMEASURED),
            now=self.database.now(connection),
        )

    @repeatable
    def pause(self, connection: Connection, job_id: int) -> JobRecord:
        """Keep a job from being dispatched or claimed; shards in work are handed back.

        Raises NotAllowed where the job is past running.
        """
        return self._set_paused(connection, job_id, paused=True)

    @repeatable
    def resume(self, connection: Connection, job_id: int) -> JobRecord:
        """Undo a pause; raise NotAllowed where the job is past running."""
        return self._set_paused(connection, job_id, paused=False)

    def _set_paused(self, connection: Connection, job_id: int, *, paused: bool) -> JobRecord:
        job = moves.lock_job(connection, job_id)
        if job.state not in PAUSABLE:
            verb = "paused" if paused else "resumed"
            raise NotAllowed(f"Job {job.public_id} is {job.state}; it cannot be {verb}.")
        changed = update(jobs).where(jobs.c.id == job_id).values(paused=paused)
        return JobRecord.from_row(connection.execute(changed.returning(jobs)).one())

    @repeatable
    def cancel(self, connection: Connection, job_id: int) -> JobRecord:
        """Stop a job; what is done stays, the rest becomes error rows `batch_cancelled`.

        Cancelling a stopping job again changes nothing. Raises NotAllowed once its dataset is
        being written or it has ended.
        """
        job = moves.lock_job(connection, job_id)
        if job.state is JobState.STOPPING:
            return job
        return moves.stop(connection, job, StopReason.CANCEL)

    @repeatable
    def fail(self, connection: Connection, job_id: int, error: str) -> JobRecord:
        """End a job for a reason that no repetition would mend.

        Raises NotAllowed where it has ended otherwise.
        """
        job = moves.lock_job(connection, job_id)
        if job.state is JobState.FAILED:
            return job
        return moves.fail(connection, job, error)

    @transaction
    def remove(
        self, connection: Connection, job_id: int, *, delete_input: Callable[[str], None]
    ) -> RemovedJob:
        """Remove an ended job; the caller then deletes the files that the answer names.

        Where no other job uses the input, `delete_input` is called with its SHA-256 before the
        transaction ends: a submit of the same input waits, and stores it again. Raises NotAllowed.
        """
        job = moves.lock_job(connection, job_id)
        if not job.state.ended:
            raise NotAllowed(f"Job {job.public_id} is {job.state}. Cancel it first.")
        files = _files_of(connection, job_id)
        of_job = select(shards.c.id).where(shards.c.job_id == job_id)
        connection.execute(delete(checkpoints).where(checkpoints.c.shard_id.in_(of_job)))
        connection.execute(delete(parts).where(parts.c.job_id == job_id))
        connection.execute(delete(shards).where(shards.c.job_id == job_id))
        connection.execute(delete(jobs).where(jobs.c.id == job_id))
        _forget_input(connection, job.input_sha256, delete_input)
        return RemovedJob(public_id=job.public_id, files=files, dataset_path=job.dataset_path)


def _rows_done(state: str, group: Row[Any]) -> int:
    if state == ShardState.COMMITTED:
        return int(group.rows_committed)
    return 0 if state == ShardState.STOPPED else int(group.rows_reported)


def _kv(group: Row[Any]) -> KVTotals:
    rows = group.kv_rows
    return KVTotals(
        rows=rows,
        preemptions=group.preemptions,
        copies=group.copies,
        utilisation=group.kv_utilisation / rows if rows else 0.0,
        sharing_saving=group.sharing_saving / rows if rows else 0.0,
    )


def _files_of(connection: Connection, job_id: int) -> tuple[str, ...]:
    registered = select(parts.c.path).where(parts.c.job_id == job_id)
    saved = (
        select(checkpoints.c.path)
        .join(shards, shards.c.id == checkpoints.c.shard_id)
        .where(shards.c.job_id == job_id)
    )
    return tuple(connection.execute(registered.union_all(saved)).scalars())


def _forget_input(connection: Connection, sha256: str, delete_input: Callable[[str], None]) -> None:
    # The lock first: only then does the question see every submit that got ahead of it.
    row = select(inputs.c.sha256).where(inputs.c.sha256 == sha256)
    connection.execute(row.with_for_update())
    used = connection.execute(select(jobs.c.id).where(jobs.c.input_sha256 == sha256).limit(1))
    if used.first() is None:
        connection.execute(delete(inputs).where(inputs.c.sha256 == sha256))
        delete_input(sha256)

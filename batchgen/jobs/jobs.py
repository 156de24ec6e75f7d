"""Submit, find, list, watch, pause and stop jobs. `removals` deletes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from sqlalchemy import (
    Connection,
    func,
    select,
    update,
)

from batchgen.core.states import JobState, ShardState, StopReason
from batchgen.database.tables import jobs, shards
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.errors import JobNotFound, NotAllowed
from batchgen.jobs import transitions
from batchgen.jobs.creation import job_creation
from batchgen.jobs.records import lookup, totals
from batchgen.jobs.records.job_records import (
    LOCAL_TENANT,
    JobRecord,
    NewJob,
    Progress,
    ShardRecord,
)

PAUSABLE = (JobState.QUEUED, JobState.RUNNING)

#: {state: why a job in it cannot be cancelled}.
TOO_LATE = {
    JobState.FINALIZING: "its rows are final and its dataset is being written. Wait for it with "
    "`batchgen wait`.",
    JobState.COMPLETED: "there is nothing to cancel. `batchgen rm` removes it.",
    JobState.EXPIRED: "its deadline has stopped it already. `batchgen rm` removes it.",
    JobState.FAILED: "it has ended already. `batchgen rm` removes it.",
}

# inside JobManager, `list` is its method, not the type
JobRecords = list[JobRecord]
ShardRecords = list[ShardRecord]
Names = list[str]


class JobManager(Manager):
    """The transactions on whole jobs. Ids are internal; `get` finds a job by its public id."""

    def submit(self, new: NewJob) -> JobRecord:
        """Store a job and all of its shards durably.

        Two submits with the same `idem_key` create one job: the second returns it, or raises
        NotAllowed if it asks for other work. Raises InvalidParameter.
        """
        return self._submit(job_creation.check_new(new))

    @repeatable
    def _submit(self, connection: Connection, new: NewJob) -> JobRecord:
        return job_creation.create_job(connection, new, self.database.now(connection))

    @reading
    def get(self, connection: Connection, ref: str, *, tenant: str = LOCAL_TENANT) -> JobRecord:
        """Return the job with this public id, or a unique beginning or end of it (4 digits up).

        Raises JobNotFound.
        """
        return lookup.by_reference(connection, ref, tenant)

    @reading
    def named(
        self,
        connection: Connection,
        name: str,
        *,
        tenant: str = LOCAL_TENANT,
        limit: int | None = None,
    ) -> JobRecords:
        """Return the jobs with this name, newest first."""
        return lookup.by_name(connection, name, tenant, limit=limit)

    @reading
    def newest_names(self, connection: Connection, *, tenant: str = LOCAL_TENANT) -> Names:
        """Return the names of the newest jobs, each once."""
        return lookup.newest_names(connection, tenant)

    @reading
    def needing_model(self, connection: Connection, model: str) -> JobRecord | None:
        """Return a job, of any tenant, that needs a model because it has not ended."""
        return lookup.needing_model(connection, model)

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
        name: str | None = None,
        limit: int = 50,
        before_id: int | None = None,
    ) -> JobRecords:
        """Return jobs, newest first; `before_id` (an internal id) asks for the next page."""
        return lookup.newest(
            connection, tenant, states=states, name=name, limit=limit, before_id=before_id
        )

    @reading
    def shards(self, connection: Connection, job_id: int) -> ShardRecords:
        """Return the leaf shards of a job in input order."""
        leaves = select(shards).where(shards.c.job_id == job_id, shards.c.state != ShardState.SPLIT)
        rows = connection.execute(leaves.order_by(shards.c.pos_start))
        return [ShardRecord.from_row(row) for row in rows]

    @reading
    def count_shards(self, connection: Connection, job_id: int) -> Counter[ShardState]:
        """Count the leaf shards of a job by state."""
        by_state = select(shards.c.state, func.count()).where(
            shards.c.job_id == job_id, shards.c.state != ShardState.SPLIT
        )
        groups = connection.execute(by_state.group_by(shards.c.state))
        return Counter({ShardState(state): count for state, count in groups})

    @reading
    def progress(self, connection: Connection, job_id: int) -> Progress:
        """Return the progress of a job; the cost does not depend on its number of shards."""
        return totals.progress(connection, [job_id])[job_id]

    @reading
    def progress_of(
        self, connection: Connection, job_ids: Collection[int]
    ) -> Mapping[int, Progress]:
        """Return the progress of several jobs, by id."""
        return totals.progress(connection, job_ids)

    @repeatable
    def pause(self, connection: Connection, job_id: int) -> JobRecord:
        """Pause a job: its shards are not claimed any more, and workers release leased ones.

        Raises NotAllowed if the job is neither queued nor running.
        """
        return self._set_paused(connection, job_id, paused=True)

    @repeatable
    def resume(self, connection: Connection, job_id: int) -> JobRecord:
        """Undo a pause; raise NotAllowed if the job is neither queued nor running."""
        return self._set_paused(connection, job_id, paused=False)

    def _set_paused(self, connection: Connection, job_id: int, *, paused: bool) -> JobRecord:
        job = transitions.lock_job(connection, job_id)
        if job.state not in PAUSABLE:
            verb = "paused" if paused else "resumed"
            raise NotAllowed(f"Job {job.public_id} is {job.state}; it cannot be {verb}.")
        changed = update(jobs).where(jobs.c.id == job_id).values(paused=paused)
        return JobRecord.from_row(connection.execute(changed.returning(jobs)).one())

    @repeatable
    def cancel(self, connection: Connection, job_id: int) -> JobRecord:
        """Stop a job. Finished rows are kept; all others become error rows `batch_cancelled`.

        A job that is already stopping or cancelled is not changed. Raises NotAllowed if there is
        nothing to stop: all rows are computed, or the job has ended otherwise.
        """
        job = transitions.lock_job(connection, job_id)
        if job.stop_reason is StopReason.CANCEL or job.state is JobState.STOPPING:
            return job
        if job.state in TOO_LATE:
            raise NotAllowed(f"Job {job.public_id} is {job.state}: {TOO_LATE[job.state]}")
        return transitions.stop(connection, job, StopReason.CANCEL)

    @repeatable
    def fail(self, connection: Connection, job_id: int, error: str) -> JobRecord:
        """Fail a job for a reason that a repetition would not fix.

        Raises NotAllowed if it has ended otherwise.
        """
        job = transitions.lock_job(connection, job_id)
        if job.state is JobState.FAILED:
            return job
        return transitions.fail(connection, job, error)

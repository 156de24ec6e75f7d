"""The outcome of a job, as its batch shows it: read with the job, and kept when that is removed."""

from __future__ import annotations

from typing import Any, Final, Self

import msgspec
from sqlalchemy import Connection, delete, select, update

from batchgen.core.states import OUTCOME, JobState, StopReason
from batchgen.database.batch_tables import batches, files
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, totals
from batchgen.jobs.records.job_records import JobRecord


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a batch's job, and its rows and tokens in committed shards."""

    state: JobState
    stop_reason: StopReason | None
    error: str | None
    total: int
    ok: int
    err: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    finalizing_at: float | None
    ended_at: float | None

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Build it from a row that has COLUMNS."""
        found = {name: row._mapping[f"job_{name}"] for name in cls.__struct_fields__}
        return msgspec.convert(found, cls)


#: The columns of an outcome, in a query that joins jobs and totals.
COLUMNS: Final = (
    jobs.c.state.label("job_state"),
    jobs.c.stop_reason.label("job_stop_reason"),
    jobs.c.error.label("job_error"),
    jobs.c.n_rows.label("job_total"),
    totals.c.n_ok.label("job_ok"),
    totals.c.n_err.label("job_err"),
    totals.c.prompt_tokens.label("job_prompt_tokens"),
    totals.c.completion_tokens.label("job_completion_tokens"),
    totals.c.cached_tokens.label("job_cached_tokens"),
    jobs.c.finalizing_at.label("job_finalizing_at"),
    jobs.c.ended_at.label("job_ended_at"),
)


def keep_outcome(connection: Connection, job: JobRecord) -> None:
    """Detach the batch of a job that is being removed, and delete its output files.

    The batch stays, with the outcome. Nothing is done for a job without a batch.
    """
    both = select(*COLUMNS, now_db().label("now")).join_from(
        jobs, totals, totals.c.job_id == jobs.c.id
    )
    query = both.join(batches, batches.c.job_id == jobs.c.id).where(jobs.c.id == job.id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return
    outcome = Outcome.from_row(row)
    if not outcome.state.ended:  # a stopped job is removed before its dataset is written
        ended = {"state": OUTCOME[job.stop_reason], "ended_at": row.now}
        outcome = msgspec.structs.replace(outcome, **ended)
    kept = msgspec.json.encode(outcome).decode()
    detached = update(batches).where(batches.c.job_id == job.id)
    connection.execute(
        # The key is free again: the batch is no answer to a repeated create any more.
        detached.values(job_id=None, input_sha256=None, idem_key=batches.c.id, ended=kept)
    )
    connection.execute(delete(files).where(files.c.batch_id == job.public_id))

"""Create a job with all of its shards, in one transaction."""

from __future__ import annotations

import secrets
from dataclasses import replace

import orjson
from sqlalchemy import Connection, insert, select
from uuid_utils import uuid7

from batchgen.calendar.windows import Window
from batchgen.core.states import JobState, ShardState
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, shards
from batchgen.errors import InvalidParameter, NotAllowed
from batchgen.jobs.creation.estimates import Estimate, estimate
from batchgen.jobs.creation.input_rows import keep_input
from batchgen.jobs.creation.sharding import plan_shards, shard_ranges
from batchgen.jobs.records import totals
from batchgen.jobs.records.job_records import JobRecord, NewJob
from batchgen.tenants import quotas

NAME_LIMIT = 200  # characters
KEY_LIMIT = 200  # characters
PRIORITY_LIMIT = 1_000_000


def is_name(text: str) -> bool:
    """Return whether a job may have this name."""
    return _is_text(text, NAME_LIMIT)


def check_new(new: NewJob) -> NewJob:
    """Return the new job with its window in canonical form, and with a random key if it has none.

    Raises InvalidParameter.
    """
    _check_text("name", new.name, NAME_LIMIT)
    _check_text("idempotency_key", new.idem_key, KEY_LIMIT)
    if not -PRIORITY_LIMIT <= new.priority <= PRIORITY_LIMIT:
        raise InvalidParameter(
            f"The priority must lie within ±{PRIORITY_LIMIT:,}.", param="priority"
        )
    if new.deadline is not None and new.deadline <= new.not_before:
        raise InvalidParameter(
            "The deadline passes before the job may start. Move one of them.", param="deadline"
        )
    return replace(
        new,
        window=None if new.window is None else str(Window.parse(new.window)),
        idem_key=new.idem_key or secrets.token_hex(16),
    )


def create_job(connection: Connection, new: NewJob, now: float) -> JobRecord:
    """Insert a checked new job, or return the job that its key already names.

    Raises NotAllowed if that job asks for other work, InvalidParameter if the deadline is past,
    QuotaExceeded if the tenant may not have one more.
    """
    known = _known(connection, new)
    if known is not None:
        return known
    if new.deadline is not None and new.deadline <= now:
        raise InvalidParameter("The deadline has passed.", param="deadline")
    expected = estimate(connection, new.model, new.lengths)
    tokens = expected.tokens_of(new.n_rows)
    is_batch = new.public_id is not None
    quotas.check_job(
        connection, new.tenant_id, n_rows=new.n_rows, tokens=tokens, is_counted=is_batch
    )
    keep_input(connection, new.input_sha256, size=new.input_bytes, n_rows=new.n_rows)
    job = _insert_job(connection, new, expected)
    totals.begin(connection, job)
    _insert_shards(connection, job, expected, most=new.shard_rows)
    return job


def _known(connection: Connection, new: NewJob) -> JobRecord | None:
    same_key = (jobs.c.tenant_id == new.tenant_id, jobs.c.idem_key == new.idem_key)
    row = connection.execute(select(jobs).where(*same_key)).one_or_none()
    if row is None:
        return None
    job = JobRecord.from_row(row)
    if not _same_work(job, new):
        raise NotAllowed(
            f"The idempotency key names job {job.public_id}, which is another one: its input, "
            "model, parameters, name, priority or window differ. Choose another key."
        )
    return job


def _same_work(job: JobRecord, new: NewJob) -> bool:
    # without not_before and deadline: '+2h' means another time in each call
    return (
        job.input_sha256,
        job.model,
        job.model_sha256,
        job.params,
        job.name,
        job.priority,
        job.window_spec,
    ) == (
        new.input_sha256,
        new.model,
        new.model_sha256,
        orjson.loads(orjson.dumps(new.params)),
        new.name,
        new.priority,
        new.window,
    )


def _insert_job(connection: Connection, new: NewJob, expected: Estimate) -> JobRecord:
    public_id = new.public_id or uuid7().hex
    added = insert(jobs).values(
        public_id=public_id,
        reversed_id=public_id[::-1],
        key_id=new.key_id,
        tenant_id=new.tenant_id,
        idem_key=new.idem_key,
        name=new.name,
        input_sha256=new.input_sha256,
        model=new.model,
        model_sha256=new.model_sha256,
        params=orjson.dumps(new.params, option=orjson.OPT_SORT_KEYS).decode(),
        state=JobState.QUEUED,
        priority=new.priority,
        not_before=new.not_before,
        deadline=new.deadline,
        window_spec=new.window,
        n_rows=new.n_rows,
        n_positions=new.n_rows,
        answer_tokens=expected.answer_tokens,
        expected_tokens=expected.tokens_of(new.n_rows),
        created_at=now_db(),
    )
    return JobRecord.from_row(connection.execute(added.returning(jobs)).one())


def _insert_shards(
    connection: Connection, job: JobRecord, expected: Estimate, *, most: int | None
) -> None:
    size = plan_shards(
        job.n_positions, row_seconds=expected.row_seconds, workers=expected.workers, most=most
    )
    rows = [
        {
            "job_id": job.id,
            "pos_start": start,
            "pos_end": end,
            "n_rows": end - start,
            "state": ShardState.READY,
        }
        for start, end in shard_ranges(job.n_positions, size)
    ]
    connection.execute(insert(shards), rows)


def _is_text(text: str, limit: int) -> bool:
    return 0 < len(text) <= limit and text.isprintable()


def _check_text(param: str, text: str | None, limit: int) -> None:
    if text is not None and not _is_text(text, limit):
        raise InvalidParameter(
            f"The {param} must have 1 to {limit} printable characters.", param=param
        )

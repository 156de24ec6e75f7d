"""Turn a prompt file into a durable job."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from batchgen.calendar.times import parse_time
from batchgen.calendar.windows import Window
from batchgen.errors import Corrupt, InvalidParameter, NotAllowed, QuotaExceeded
from batchgen.failpoints import reach
from batchgen.inputs.ingest import OnInvalid, StoredInput, ingest
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs.creation.sharding import shard_limit
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord, NewJob
from batchgen.jobs.removals import Remover
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.requests.lines import check_defaults
from batchgen.storage.storage import Storage

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The request of a user, without the rows. Times are text for `calendar.times`."""

    # registry name
    model: str
    # decoding parameters of every row that does not set them
    params: Mapping[str, Any] = field(default_factory=dict)
    on_invalid: OnInvalid | str = OnInvalid.REFUSE
    name: str | None = None
    # a higher number goes first
    priority: int = 0
    not_before: str | None = None
    # hours of the day, such as 22:00-06:00 Europe/Berlin
    window: str | None = None
    deadline: str | None = None
    # submits with the same key and content create one job
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times at which a job may run, in seconds since the epoch."""

    not_before: float = 0.0
    deadline: float | None = None
    window: str | None = None


def submit(
    source: BinaryIO,
    submission: Submission,
    *,
    store: Store,
    storage: Storage,
    model: ModelRecord,
    notice: Notice | None = None,
    tenant: str = LOCAL_TENANT,
    key_id: str | None = None,
) -> JobRecord:
    """Store the rows of `source` and queue a job on them; the job is durable on return.

    `notice` is called with each message for the user about the rows. All other arguments are
    checked before the first row is read.

    Raises:
        InvalidParameter: a parameter, a time or a window cannot be used.
        EmptyInput, BadLines: the rows cannot be used; they are not stored.
        NotAllowed: the idempotency key belongs to a job with other content.
        DatabaseUnavailable, SchemaMismatch: the database cannot be used.
        StoreMismatch: the home is not the one whose files the workers of the database read.
    """
    check_defaults(dict(submission.params), model.max_length, model.dialect)
    timing = check_timing(submission)
    store.database.check_schema()
    storage.establish()
    stored = _ingest(source, submission, storage, model)
    if notice and (said := stored.other_models.notice(model.name)):
        notice(said)
    reach("submit.stored")
    new = _new_job(submission, timing, stored, model)
    try:
        job = store.jobs.submit(replace(new, tenant_id=tenant, key_id=key_id))
    except (InvalidParameter, NotAllowed, QuotaExceeded):
        Remover(store.database, storage).discard(stored.sha256)
        raise
    reach("submit.committed")
    _keep_input(source, submission, job, store=store, storage=storage, model=model)
    return job


def check_timing(submission: Submission) -> Timing:
    """Read the times of a submission; raise InvalidParameter."""
    # Only distances count from this machine's clock; it is not compared with the database's.
    now = time.time()
    start, end = submission.not_before, submission.deadline
    not_before = parse_time(start, now=now, param="not_before") if start is not None else 0.0
    deadline = parse_time(end, now=now, param="deadline") if end is not None else None
    # With a key the store checks this: the job may exist since before the deadline.
    earliest = not_before if submission.idempotency_key else max(now, not_before)
    if deadline is not None and deadline <= earliest:
        raise InvalidParameter(
            f"The deadline {end!r} has passed, or is before the job may start.", param="deadline"
        )
    window = None if submission.window is None else str(Window.parse(submission.window))
    return Timing(not_before=not_before, deadline=deadline, window=window)


def _ingest(
    source: BinaryIO, submission: Submission, storage: Storage, model: ModelRecord
) -> StoredInput:
    return ingest(
        source,
        storage=storage,
        defaults=dict(submission.params),
        model=submission.model,
        on_invalid=OnInvalid(submission.on_invalid),
        context=model.max_length,
        dialect=model.dialect,
    )


def _new_job(
    submission: Submission, timing: Timing, stored: StoredInput, model: ModelRecord
) -> NewJob:
    return NewJob(
        input_sha256=stored.sha256,
        input_bytes=stored.bytes,
        n_rows=stored.n_rows,
        lengths=stored.lengths,
        shard_rows=shard_limit(model),
        model=model.name,
        model_sha256=model.sha256,
        params=dict(submission.params),
        name=submission.name,
        priority=submission.priority,
        not_before=timing.not_before,
        deadline=timing.deadline,
        window=timing.window,
        idem_key=submission.idempotency_key,
    )


def _keep_input(
    source: BinaryIO,
    submission: Submission,
    job: JobRecord,
    *,
    store: Store,
    storage: Storage,
    model: ModelRecord,
) -> None:
    """Store the rows again if the removal of another job has deleted them meanwhile."""
    keys = (input_key(job.input_sha256), index_key(job.input_sha256))
    if all(storage.size(key) is not None for key in keys):
        return
    try:
        source.seek(0)
    except (io.UnsupportedOperation, OSError):
        storage.check()
        message = "The stored input was removed with another job that used it. Submit again."
        store.jobs.fail(job.id, message)
        raise Corrupt(message) from None
    _ingest(source, submission, storage, model)

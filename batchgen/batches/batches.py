"""The transactions on batches as their callers ask for them: create, find, list, cancel."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, insert, select, update
from uuid_utils import uuid7

from batchgen.batches.batch_records import BatchRecord, NewBatch
from batchgen.batches.files import visible
from batchgen.core.states import JobState, StopReason
from batchgen.database.batch_tables import UNCHECKED, batches, files
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, totals
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.errors import BatchNotFound, FileNotFound, NotAllowed
from batchgen.failpoints import reach
from batchgen.jobs import transitions
from batchgen.jobs.records.outcomes import COLUMNS
from batchgen.tenants import quotas
from batchgen.webhooks import outbox

RETRY_SPAN = 3600.0  # seconds in which an equal batch is the answer to a repeated create

BatchRecords = list[BatchRecord]


class BatchManager(Manager):
    """The transactions on the batches of all tenants."""

    def create(self, new: NewBatch, *, tenant: str, key_id: str | None = None) -> BatchRecord:
        """Create a batch, to be checked by a coordinator; or return the one that this repeats.

        Raises FileNotFound, and NotAllowed if the key belongs to a batch with other content.
        """
        ids = tuple(uuid7().hex for _ in range(3))
        return self._create(new, ids, tenant, key_id)

    @repeatable
    def _create(
        self,
        connection: Connection,
        new: NewBatch,
        ids: tuple[str, ...],
        tenant: str,
        key_id: str | None,
    ) -> BatchRecord:
        if (done := _find(connection, tenant, batches.c.id == ids[0])) is not None:
            return done  # an earlier run of this transaction committed; its answer was lost
        # The lock makes creates on one file wait for each other, so that repetitions are seen.
        query = visible(tenant).where(
            files.c.id == new.input_file_id, files.c.input_sha256.is_not(None)
        )
        file = connection.execute(query.with_for_update(of=files)).one_or_none()
        if file is None:
            raise FileNotFound(
                f"No file file-{new.input_file_id} with lines of requests.", param="input_file_id"
            )
        key, known = _key_and_known(connection, new, tenant, file.input_sha256)
        if known is not None:
            return known
        quotas.check_batch(connection, tenant)
        values = _values(new, ids, file, self.database.now(connection))
        added = insert(batches).values(tenant_id=tenant, key_id=key_id, idem_key=key, **values)
        connection.execute(added)
        reach("batch.creating")
        return _get(connection, tenant, ids[0])

    @reading
    def get(self, connection: Connection, batch_id: str, *, tenant: str) -> BatchRecord:
        """Return a batch; raise BatchNotFound."""
        return _get(connection, tenant, batch_id)

    @reading
    def list(
        self, connection: Connection, *, tenant: str, after: str | None = None, limit: int = 20
    ) -> BatchRecords:
        """Return batches, newest first; `after` is the id of the last one seen."""
        query = with_outcome().where(batches.c.tenant_id == tenant)
        if after is not None:
            query = query.where(batches.c.id < after)
        rows = connection.execute(query.order_by(batches.c.id.desc()).limit(limit))
        return [BatchRecord.from_row(row) for row in rows]

    @repeatable
    def cancel(self, connection: Connection, batch_id: str, *, tenant: str) -> BatchRecord:
        """Cancel a batch; what is finished is kept. To cancel it twice is no error.

        Raises BatchNotFound, and NotAllowed if there is nothing to cancel any more.
        """
        unchecked = update(batches).where(
            batches.c.id == batch_id, batches.c.tenant_id == tenant, UNCHECKED
        )
        now = self.database.now(connection)
        stopped = connection.execute(unchecked.values(cancelling_at=now, cancelled_at=now))
        batch = _get(connection, tenant, batch_id)
        if stopped.rowcount:
            outbox.announce_batch(connection, tenant, batch_id, JobState.CANCELLED)
        if batch.cancelled_at is not None:
            return batch
        if batch.job_id is None:
            raise _too_late(batch)
        # Its job is locked before the batch, as in every other transaction.
        job = transitions.lock_job(connection, batch.job_id)
        if job.state in (JobState.QUEUED, JobState.RUNNING):
            transitions.stop(connection, job, StopReason.CANCEL)
        batch = _get(connection, tenant, batch_id)
        if job.stop_reason is not StopReason.CANCEL and job.state not in CANCELLABLE:
            raise _too_late(batch)
        return batch


CANCELLABLE = (JobState.QUEUED, JobState.RUNNING, JobState.STOPPING)


def with_outcome() -> Select[Any]:
    """Return the query for batches with the outcome of their job, for `BatchRecord.from_row`."""
    joined = batches.outerjoin(jobs, jobs.c.id == batches.c.job_id).outerjoin(
        totals, totals.c.job_id == batches.c.job_id
    )
    return select(batches, *COLUMNS).select_from(joined)


def _find(connection: Connection, tenant: str, condition: Any) -> BatchRecord | None:
    query = with_outcome().where(batches.c.tenant_id == tenant, condition)
    row = connection.execute(query).one_or_none()
    return None if row is None else BatchRecord.from_row(row)


def _get(connection: Connection, tenant: str, batch_id: str) -> BatchRecord:
    found = _find(connection, tenant, batches.c.id == batch_id)
    if found is None:
        raise BatchNotFound(f"No batch batch_{batch_id}.")
    return found


def _values(new: NewBatch, ids: tuple[str, ...], file: Row[Any], now: float) -> dict[str, Any]:
    return {
        "id": ids[0],
        "endpoint": new.endpoint,
        "completion_window": new.completion_window,
        "metadata": None if new.metadata is None else orjson.dumps(new.metadata).decode(),
        "options": new.options.encode(),
        "model": new.model,
        "input_file_id": new.input_file_id,
        "input_sha256": file.input_sha256,
        "output_file_id": ids[1],
        "error_file_id": ids[2],
        "output_seconds": new.output_seconds,
        "created_at": now,
        "not_before": new.not_before,
        "expires_at": now + new.window_seconds if new.deadline is None else new.deadline,
    }


def _key_and_known(
    connection: Connection, new: NewBatch, tenant: str, sha256: str
) -> tuple[str, BatchRecord | None]:
    """Return the stored key of a new batch, and the batch that is the answer instead of it."""
    content = _digest(_content(new))
    if new.idem_key is not None:
        key = f"key/{new.idem_key}"
        known = _find(connection, tenant, batches.c.idem_key == key)
        if known is not None and _digest(_content_of(known)) != content:
            raise NotAllowed(
                f"The idempotency key names batch_{known.id}, which was created with other "
                "values. Choose another key."
            )
        return key, known
    key, last = _next_key(connection, tenant, content, sha256)
    if last is not None and new.is_retry and _is_recent(connection, last):
        return key, _get(connection, tenant, last)
    return key, None


def _next_key(
    connection: Connection, tenant: str, content: str, sha256: str
) -> tuple[str, str | None]:
    """Return a key that no batch has, and the id of the newest equal batch, if there is one.

    Each equal batch has the id of the one before it in its key. So two creates that see the same
    newest batch cannot both be stored.
    """
    prefix = f"content/{content}/"
    equals = (batches.c.input_sha256 == sha256, batches.c.idem_key.startswith(prefix))
    query = select(batches.c.id).where(batches.c.tenant_id == tenant, *equals)
    last = connection.execute(query.order_by(batches.c.id.desc()).limit(1)).scalar()
    return f"{prefix}{last or ''}", last


def _is_recent(connection: Connection, batch_id: str) -> bool:
    query = select(batches.c.id).where(batches.c.id == batch_id)
    recent = query.where(batches.c.created_at > now_db() - RETRY_SPAN)
    return connection.execute(recent).first() is not None


def _content(new: NewBatch) -> tuple[Any, ...]:
    return (
        *(new.input_file_id, new.endpoint, new.completion_window),
        *(new.metadata, new.options.encode(), new.model, new.output_seconds),
    )


def _content_of(batch: BatchRecord) -> tuple[Any, ...]:
    return (
        *(batch.input_file_id, batch.endpoint, batch.completion_window),
        *(batch.metadata, batch.options.encode(), batch.model, batch.output_seconds),
    )


def _digest(content: tuple[Any, ...]) -> str:
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def _too_late(batch: BatchRecord) -> NotAllowed:
    return NotAllowed(f"batch_{batch.id} is {batch.status}; it cannot be cancelled any more.")

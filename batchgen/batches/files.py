"""The transactions on files: register an upload, find, list, count and delete."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, or_, select, update
from uuid_utils import uuid7

from batchgen.batches.file_records import FileRecord, NewFile, Purpose
from batchgen.database.batch_tables import batches, files
from batchgen.database.database import now_db
from batchgen.database.tables import jobs
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.errors import FileNotFound
from batchgen.inputs.upload import Uploaded
from batchgen.jobs.creation.input_rows import forget_input, keep_input
from batchgen.jobs.removals import leave_tombstone
from batchgen.tenants import quotas

SOME = 100  # files in one transaction

FileRecords = list[FileRecord]
Ids = list[str]


#: The query for files, for `FileRecord.from_row`.
SELECTED = select(
    files,
    batches.c.endpoint,
    (batches.c.error_file_id == files.c.id).label("is_errors"),
    jobs.c.ended_at.is_not(None).label("is_final"),
).select_from(
    files.outerjoin(batches, batches.c.id == files.c.batch_id).outerjoin(
        jobs, jobs.c.id == batches.c.job_id
    )
)


class FileManager(Manager):
    """The transactions on the files of all tenants."""

    def add(
        self, new: NewFile, uploaded: Uploaded, *, tenant: str, key_id: str | None = None
    ) -> FileRecord:
        """Register an upload whose bytes are stored."""
        return self._add(uuid7().hex, new, uploaded, tenant, key_id)

    @repeatable
    def _add(
        self,
        connection: Connection,
        file_id: str,
        new: NewFile,
        uploaded: Uploaded,
        tenant: str,
        key_id: str | None,
    ) -> FileRecord:
        if (known := _get(connection, file_id)) is not None:
            return known
        quotas.check_file(connection, tenant, bytes=uploaded.bytes)
        keep_input(connection, uploaded.sha256, size=uploaded.bytes, n_rows=uploaded.n_rows)
        after, now = new.expires_after, self.database.now(connection)
        added = insert(files).values(
            id=file_id,
            tenant_id=tenant,
            key_id=key_id,
            filename=new.filename,
            purpose=Purpose.BATCH,
            bytes=uploaded.bytes,
            input_sha256=uploaded.sha256,
            created_at=now,
            expires_at=None if after is None else now + after,
        )
        connection.execute(added)
        registered = _get(connection, file_id)
        assert registered is not None, "it was inserted just now"
        return registered

    @reading
    def room(self, connection: Connection, arrived: int, *, tenant: str) -> int:
        """Return how many bytes a tenant may upload; raise QuotaExceeded if `arrived` are more."""
        return quotas.room_for_file(connection, tenant, bytes=arrived)

    @reading
    def get(self, connection: Connection, file_id: str, *, tenant: str) -> FileRecord:
        """Return a file; raise FileNotFound, also once it has expired."""
        row = connection.execute(visible(tenant).where(files.c.id == file_id)).one_or_none()
        if row is None:
            raise FileNotFound
        return FileRecord.from_row(row)

    @reading
    def list(
        self,
        connection: Connection,
        *,
        tenant: str,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        ascending: bool = False,
    ) -> FileRecords:
        """Return files, newest first or oldest first; `after` is the id of the last one seen.

        An output file is listed once its lines are counted.
        """
        query = visible(tenant).where(files.c.bytes.is_not(None))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            query = query.where(files.c.id > after if ascending else files.c.id < after)
        order = files.c.id.asc() if ascending else files.c.id.desc()
        return [
            FileRecord.from_row(row)
            for row in connection.execute(query.order_by(order).limit(limit))
        ]

    @repeatable
    def delete(self, connection: Connection, file_id: str, *, tenant: str) -> FileRecord | None:
        """Delete a file and return it; None if there is none, so that a repetition is no error.

        If nothing else uses its bytes, a tombstone says that they are to be deleted.
        """
        found = visible(tenant).where(files.c.id == file_id)
        return _delete(connection, connection.execute(found).one_or_none())

    @repeatable
    def delete_expired(self, connection: Connection) -> FileRecords:
        """Delete files whose time is over, some at once, and return them."""
        late = SELECTED.where(files.c.expires_at.is_not(None), files.c.expires_at <= now_db())
        some = late.order_by(files.c.expires_at).limit(SOME)
        rows = connection.execute(some.with_for_update(skip_locked=True, of=files)).all()
        return [file for row in rows if (file := _delete(connection, row)) is not None]

    @reading
    def uncounted(self, connection: Connection) -> FileRecords:
        """Return output files of ended jobs whose lines have not been counted, some at once."""
        ended = SELECTED.where(files.c.bytes.is_(None), jobs.c.ended_at.is_not(None))
        found = ended.order_by(jobs.c.ended_at).limit(SOME)
        return [FileRecord.from_row(row) for row in connection.execute(found)]

    @repeatable
    def set_bytes(self, connection: Connection, file_id: str, counted: int) -> FileRecord | None:
        """Store the bytes of an output file, from which its time runs; delete it if it has none.

        Returns None if there is no such file any more.
        """
        mine = files.c.id == file_id
        if not counted:
            connection.execute(delete(files).where(mine))
            return None
        kept = select(batches.c.output_seconds).where(batches.c.id == files.c.batch_id)
        stored = (
            update(files)
            .where(mine, files.c.bytes.is_(None))
            .values(
                bytes=counted,
                created_at=now_db(),
                expires_at=now_db() + kept.scalar_subquery(),
            )
        )
        connection.execute(stored)
        return _get(connection, file_id)

    @reading
    def is_given_up(self, connection: Connection, batch_id: str) -> bool:
        """Return whether the job of a batch is to be removed, because no result file is left."""
        found = _given_up().where(batches.c.id == batch_id)
        return connection.execute(found).first() is not None

    @reading
    def given_up(self, connection: Connection) -> Ids:
        """Return the batches whose result files are all deleted, and whose jobs still exist."""
        return list(connection.execute(_given_up().limit(SOME)).scalars())


def visible(tenant: str) -> Select[Any]:
    """Return the query for the files of a tenant, without those whose time is over."""
    is_kept = or_(files.c.expires_at.is_(None), files.c.expires_at > now_db())
    return SELECTED.where(files.c.tenant_id == tenant, is_kept)


def _given_up() -> Select[Any]:
    left = select(files.c.id).where(files.c.batch_id == batches.c.id)
    joined = select(batches.c.id).join(jobs, jobs.c.id == batches.c.job_id)
    return joined.where(jobs.c.dataset_path.is_not(None), ~left.exists())


def add_output_files(connection: Connection, batch: Row[Any]) -> None:
    """Insert the output and the error file of a batch whose job was created just now."""
    made = [
        {
            "id": file_id,
            "tenant_id": batch.tenant_id,
            "key_id": batch.key_id,
            "filename": f"batch_{batch.id}_{kind}.jsonl",
            "purpose": Purpose.OUTPUT,
            "batch_id": batch.id,
            "created_at": batch.in_progress_at,
        }
        for file_id, kind in ((batch.output_file_id, "output"), (batch.error_file_id, "error"))
    ]
    connection.execute(insert(files), made)


def _get(connection: Connection, file_id: str) -> FileRecord | None:
    row = connection.execute(SELECTED.where(files.c.id == file_id)).one_or_none()
    return None if row is None else FileRecord.from_row(row)


def _delete(connection: Connection, row: Row[Any] | None) -> FileRecord | None:
    if row is None:
        return None
    connection.execute(delete(files).where(files.c.id == row.id))
    if row.input_sha256 is not None and forget_input(connection, row.input_sha256):
        leave_tombstone(connection, row.id, row.input_sha256, tenant=row.tenant_id)
    return FileRecord.from_row(row)

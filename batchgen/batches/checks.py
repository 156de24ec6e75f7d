"""The transactions of a check: a batch is claimed, and then becomes a job or is refused.

claim ─► renew … ─┬─► accept   its job exists, under the batch's id
                  └─► refuse   failed, with the problems of its lines

A claim only spares other coordinators the work. If two check one batch, the first end counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Connection, or_, select, update

from batchgen.batches.batch_records import BatchError, BatchRecord
from batchgen.batches.batches import with_outcome
from batchgen.batches.files import add_output_files
from batchgen.core.states import JobState
from batchgen.database.batch_tables import UNCHECKED, batches
from batchgen.database.clock import SLACK
from batchgen.database.database import Database, now_db
from batchgen.database.tables import inputs
from batchgen.database.transactions import Manager, repeatable, transaction
from batchgen.jobs.creation import job_creation
from batchgen.jobs.records.job_records import NewJob
from batchgen.webhooks import outbox

CLAIM_SECONDS = 60.0
NEARLY = 0.001  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked:
    """A batch that this process checks, with what is known of its input."""

    batch: BatchRecord
    input_bytes: int
    n_rows: int


class CheckManager(Manager):
    """The transactions of the coordinators on batches without a job.

    A claim lasts `seconds` unless it is renewed.
    """

    def __init__(self, database: Database, *, seconds: float = CLAIM_SECONDS) -> None:
        super().__init__(database)
        self.seconds = seconds

    @transaction
    def claim(self, connection: Connection) -> Unchecked | None:
        """Claim the oldest batch that no coordinator is checking; return None if there is none."""
        now, claimed = now_db(), batches.c.claimed_until
        # A claim that ends later than a new one is of a time before the clock was set back.
        is_free = or_(claimed.is_(None), claimed < now, claimed > now + self.seconds + SLACK)
        oldest = select(batches.c.id).where(UNCHECKED, is_free).order_by(batches.c.created_at)
        found = connection.execute(oldest.limit(1).with_for_update(skip_locked=True)).scalar()
        if found is None:
            return None
        self._hold(connection, found)
        row = connection.execute(
            with_outcome()
            .add_columns(inputs.c.bytes, inputs.c.n_rows)
            .join(inputs, inputs.c.sha256 == batches.c.input_sha256)
            .where(batches.c.id == found)
        ).one()
        return Unchecked(batch=BatchRecord.from_row(row), input_bytes=row.bytes, n_rows=row.n_rows)

    @repeatable
    def renew(self, connection: Connection, batch_id: str) -> bool:
        """Extend a claim; return False if the batch was cancelled, or another check has ended."""
        return self._hold(connection, batch_id)

    @repeatable
    def release(self, connection: Connection, batch_id: str, *, delay: float = 0.0) -> None:
        """Let the batch be checked again, by any coordinator, after `delay` seconds."""
        mine = update(batches).where(batches.c.id == batch_id, UNCHECKED)
        connection.execute(mine.values(claimed_until=now_db() + delay if delay else None))

    @repeatable
    def refuse(self, connection: Connection, batch_id: str, errors: Sequence[BatchError]) -> None:
        """Fail a batch for the reasons given; nothing happens if it is not unchecked any more."""
        listed = msgspec.json.encode(list(errors)).decode()
        mine = update(batches).where(batches.c.id == batch_id, UNCHECKED)
        failed = mine.values(failed_at=now_db(), errors=listed, claimed_until=None)
        for tenant in connection.execute(failed.returning(batches.c.tenant_id)).scalars():
            outbox.announce_batch(connection, tenant, batch_id, JobState.FAILED)

    def accept(self, batch_id: str, new: NewJob) -> None:
        """Create the job of a batch; nothing happens if it is not unchecked any more."""
        self._accept(batch_id, job_creation.check_new(new))

    @repeatable
    def _accept(self, connection: Connection, batch_id: str, new: NewJob) -> None:
        mine = select(batches.c.id).where(batches.c.id == batch_id, UNCHECKED)
        if connection.execute(mine.with_for_update()).first() is None:
            return
        now = self.database.now(connection)
        if new.deadline is not None and new.deadline <= now:
            # The job expires at once, so that its rows are in the error file.
            new = replace(new, deadline=now + NEARLY, not_before=0.0)
        job = job_creation.create_job(connection, new, now)
        begun = update(batches).where(batches.c.id == batch_id)
        row = connection.execute(
            begun.values(job_id=job.id, in_progress_at=now_db(), claimed_until=None).returning(
                batches
            )
        ).one()
        add_output_files(connection, row)

    def _hold(self, connection: Connection, batch_id: str) -> bool:
        mine = update(batches).where(batches.c.id == batch_id, UNCHECKED)
        held = connection.execute(mine.values(claimed_until=now_db() + self.seconds))
        return held.rowcount > 0

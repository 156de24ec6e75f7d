"""Rows of the table `inputs`: one is there as long as a job, a file or a batch uses the input."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, union_all

from batchgen.core.states import InputState
from batchgen.database.batch_tables import batches, files
from batchgen.database.database import now_db
from batchgen.database.tables import inputs, jobs, upsert


def keep_input(connection: Connection, sha256: str, *, size: int, n_rows: int) -> None:
    """Insert the row of an input that is stored, if it is not there."""
    stored = upsert(connection, inputs).values(
        sha256=sha256,
        state=InputState.READY,
        bytes=size,
        n_rows=n_rows,
        format="jsonl",
        created_at=now_db(),
    )
    connection.execute(stored.on_conflict_do_nothing())


def forget_input(connection: Connection, sha256: str) -> bool:
    """Delete the row of an input that nothing uses any more; return whether it is deleted."""
    # Take the lock first: only then does this query see every submit before it.
    row = select(inputs.c.sha256).where(inputs.c.sha256 == sha256)
    connection.execute(row.with_for_update())
    uses = union_all(
        *[
            select(table.c.input_sha256).where(table.c.input_sha256 == sha256)
            for table in (jobs, files, batches)
        ]
    )
    if connection.execute(uses.limit(1)).first() is not None:
        return False
    connection.execute(delete(inputs).where(inputs.c.sha256 == sha256))
    return True

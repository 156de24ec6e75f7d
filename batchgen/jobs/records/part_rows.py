"""Rows of the table `parts`, written in the transaction that commits the shard.

Only this module inserts and deletes them, so that the totals of the job are updated with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert

from batchgen.database.database import now_db
from batchgen.database.tables import checkpoints, parts
from batchgen.jobs.records import totals
from batchgen.jobs.records.job_records import PartRecord

if TYPE_CHECKING:
    from batchgen.core.kv_totals import KVTotals
    from batchgen.dataset.parts import PartInfo  # importing pyarrow is slow


def register(
    connection: Connection, shard_id: int, job_id: int, epoch: int, part: PartInfo
) -> None:
    """Insert the part of a shard that this transaction commits under an epoch."""
    connection.execute(
        insert(parts).values(
            shard_id=shard_id,
            job_id=job_id,
            epoch=epoch,
            path=part.path,
            n_rows=part.n_rows,
            n_ok=part.n_ok,
            n_err=part.n_err,
            bytes=part.bytes,
            sha256=part.sha256,
            prompt_tokens=part.prompt_tokens,
            completion_tokens=part.completion_tokens,
            committed_at=now_db(),
            cached_tokens=part.cached_tokens,
            n_stop=part.finish_reasons.stop,
            n_length=part.finish_reasons.length,
            **_kv_columns(part.kv),
        )
    )
    totals.add(connection, job_id, part)
    connection.execute(delete(checkpoints).where(checkpoints.c.shard_id == shard_id))


def unregister(connection: Connection, part: PartRecord) -> bool:
    """Delete the row of a part whose file is lost; return whether it was there."""
    row = delete(parts).where(parts.c.shard_id == part.shard_id, parts.c.path == part.path)
    if not connection.execute(row).rowcount:
        return False
    totals.take_back(connection, part)
    return True


def _kv_columns(kv: KVTotals) -> dict[str, Any]:
    measured = kv.rows > 0
    return {
        "preemptions": kv.preemptions,
        "copies": kv.copies,
        "kv_utilisation": kv.utilisation if measured else None,
        "sharing_saving": kv.sharing_saving if measured else None,
    }

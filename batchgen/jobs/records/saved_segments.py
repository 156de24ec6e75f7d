"""The files that hold the finished rows of a job that has no dataset yet."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, func, literal_column, or_, select

from batchgen.core.states import ShardState
from batchgen.database.tables import checkpoints, parts, shards
from batchgen.jobs.creation.sharding import MAX_SHARD_ROWS
from batchgen.jobs.records.job_records import SavedSegment

SAVED_TOGETHER = 64  # files named by one query


def read(
    connection: Connection, job_id: int, *, start: int, only_failed: bool
) -> list[SavedSegment]:
    """Return the next files that reach beyond position `start`, in input order.

    The cost does not depend on the number of shards.
    """
    rows = connection.execute(_query(job_id, start, only_failed))
    return [SavedSegment(**row._mapping) for row in rows]


def _query(job_id: int, start: int, only_failed: bool) -> Select[Any]:
    query = (
        select(
            shards.c.pos_start,
            shards.c.pos_end,
            func.coalesce(parts.c.path, checkpoints.c.path).label("path"),
            func.coalesce(parts.c.sha256, checkpoints.c.sha256).label("sha256"),
        )
        .outerjoin(parts, parts.c.shard_id == shards.c.id)
        .outerjoin(checkpoints, checkpoints.c.shard_id == shards.c.id)
        .where(
            shards.c.job_id == job_id,
            # a literal, so that the partial index of leaves is used
            shards.c.state != literal_column(f"'{ShardState.SPLIT}'"),
            shards.c.pos_start > start - MAX_SHARD_ROWS,
            shards.c.pos_end > start,
            or_(parts.c.path.is_not(None), checkpoints.c.path.is_not(None)),
        )
    )
    if only_failed:
        query = query.where(or_(parts.c.n_err.is_(None), parts.c.n_err > 0))
    return query.order_by(shards.c.pos_start).limit(SAVED_TOGETHER)

"""Totals: the sums of a job's parts, stored so that no query adds up ten thousand shards.

commit    part inserted ─┐
                         ├─ one transaction
          totals += part ┘
progress  totals + rows reported by the few leased shards
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Row,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import KVTotals
from batchgen.core.states import ShardState
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, shard_is, shards, totals
from batchgen.jobs.records.job_records import JobRecord, PartRecord, Progress

if TYPE_CHECKING:
    from batchgen.dataset.parts import PartInfo

JOBS_AT_ONCE: Final = 500  # in one statement

# Rows that leased shards have reported. The conditions are exactly those of a partial index, so
# that both databases use it.
_BEGUN = (
    select(
        cast(
            func.coalesce(
                func.sum(
                    case(
                        (shard_is(ShardState.READY, ShardState.LEASED), shards.c.rows_done), else_=0
                    )
                ),
                0,
            ),
            BigInteger,
        )
    )
    .where(
        shards.c.job_id == totals.c.job_id,
        shards.c.rows_done > literal_column("0"),
        shards.c.state != literal_column(f"'{ShardState.COMMITTED}'"),
    )
    .correlate(totals)
    .scalar_subquery()
)


def _in_work(column: Column[int]) -> ColumnElement[int]:
    """Return the sum of a column over the leased shards of a job."""
    return (
        select(cast(func.coalesce(func.sum(column), 0), BigInteger))
        .where(shards.c.job_id == totals.c.job_id, shard_is(ShardState.LEASED))
        .correlate(totals)
        .scalar_subquery()
    )


# One statement, so that it sees a commit in both the shard and the totals, or in neither.
_PROGRESS = (
    select(
        totals,
        jobs.c.n_rows.label("wanted"),
        _BEGUN.label("begun"),
        _in_work(shards.c.rows_done).label("rows_in_work"),
        _in_work(shards.c.tokens_done).label("tokens_in_work"),
        _in_work(shards.c.tokens_running).label("tokens_running"),
        now_db().label("now"),
    )
    .join(jobs, jobs.c.id == totals.c.job_id)
    .where(totals.c.job_id.in_(bindparam("job_ids", expanding=True)))
)


_CHANGE = (
    update(totals)
    .where(totals.c.job_id == bindparam("changed_job"))
    .values(
        {
            column.name: column + bindparam(f"more_{column.name}", type_=column.type)
            for column in totals.columns
            if not column.primary_key
        }
    )
)


def begin(connection: Connection, job: JobRecord) -> None:
    """Insert the totals of a new job, all zero."""
    connection.execute(insert(totals).values(job_id=job.id))


def add(connection: Connection, job_id: int, part: PartInfo) -> None:
    """Add a part, in the transaction that inserts it. Waits for other commits of the job."""
    _change(connection, job_id, part, part.kv, 1)


def take_back(connection: Connection, part: PartRecord) -> None:
    """Subtract a part, in the transaction that deletes it."""
    _change(connection, part.job_id, part, part.kv, -1)


def forget(connection: Connection, job_id: int) -> None:
    """Delete the totals of a job that is being removed."""
    connection.execute(delete(totals).where(totals.c.job_id == job_id))


def progress(connection: Connection, job_ids: Collection[int]) -> dict[int, Progress]:
    """Return the progress of jobs by id; the cost does not depend on their numbers of shards."""
    found = dict.fromkeys(job_ids, Progress())
    for at in range(0, len(found), JOBS_AT_ONCE):
        some = list(found)[at : at + JOBS_AT_ONCE]
        for row in connection.execute(_PROGRESS, {"job_ids": some}):
            found[row.job_id] = _progress(row)
    return found


def _progress(row: Row[Any]) -> Progress:
    return Progress(
        committed=row.parts,
        n_rows=row.wanted,
        rows_done=row.n_rows + row.begun,
        rows_ok=row.n_ok,
        rows_err=row.n_err,
        finish_reasons=FinishReasons(stop=row.n_stop, length=row.n_length),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cached_tokens=row.cached_tokens,
        rows_in_work=row.rows_in_work,
        tokens_in_work=row.tokens_in_work,
        tokens_running=row.tokens_running,
        kv=_kv(row),
        now=row.now,
    )


def _change(
    connection: Connection, job_id: int, part: PartInfo | PartRecord, kv: KVTotals, sign: int
) -> None:
    of_part: dict[str, Any] = {
        "parts": 1,
        "n_rows": part.n_rows,
        "n_ok": part.n_ok,
        "n_err": part.n_err,
        "n_stop": part.finish_reasons.stop,
        "n_length": part.finish_reasons.length,
        "prompt_tokens": part.prompt_tokens,
        "completion_tokens": part.completion_tokens,
        "cached_tokens": part.cached_tokens,
        "preemptions": kv.preemptions,
        "copies": kv.copies,
        "kv_rows": part.n_ok if kv.rows else 0,
        "kv_utilisation": part.n_ok * kv.utilisation if kv.rows else 0.0,
        "sharing_saving": part.n_ok * kv.sharing_saving if kv.rows else 0.0,
    }
    changes = {f"more_{name}": sign * value for name, value in of_part.items()}
    connection.execute(_CHANGE, {"changed_job": job_id, **changes})


def _kv(row: Row[Any]) -> KVTotals:
    rows = row.kv_rows
    return KVTotals(
        rows=rows,
        preemptions=row.preemptions,
        copies=row.copies,
        utilisation=row.kv_utilisation / rows if rows else 0.0,
        sharing_saving=row.sharing_saving / rows if rows else 0.0,
    )

"""Quotas: what a tenant may have at one time, checked in the transaction that adds to it.

job submitted ─► tenant's row locked ─► jobs that have not ended, their tokens ─► job inserted
job ends ─► it is counted no more: nothing has to be given back
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import BigInteger, Connection, cast, func, select

from batchgen.database.batch_tables import batches, files
from batchgen.database.tables import jobs
from batchgen.database.tenant_tables import tenants
from batchgen.errors import QuotaExceeded

if TYPE_CHECKING:
    from sqlalchemy import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The limits of one tenant; None is no limit."""

    # jobs and batches that have not ended
    max_jobs: int | None = None
    # rows of one job
    max_rows: int | None = None
    # expected tokens, of prompts and answers, of the jobs that have not ended
    max_tokens: int | None = None
    # of the uploaded files that are kept
    max_bytes: int | None = None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of tenants."""
        return cls(
            max_jobs=row.max_jobs,
            max_rows=row.max_rows,
            max_tokens=row.max_tokens,
            max_bytes=row.max_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """The amounts that a tenant uses now of everything that its quotas limit."""

    jobs: int
    tokens: int
    bytes: int


def check_job(
    connection: Connection, tenant: str, *, n_rows: int, tokens: int, is_counted: bool = False
) -> None:
    """Raise QuotaExceeded if a tenant may not add a job of so many rows and expected tokens.

    Call it in the transaction that inserts the job. Two such transactions of a tenant with limits
    wait for each other, so that both together do not exceed them. The job of a batch `is_counted`:
    `check_batch` has let it in.
    """
    limits = _limits(connection, tenant)
    _check("max_rows", limits.max_rows, n_rows, "rows in one job")
    max_jobs = None if is_counted else limits.max_jobs
    if max_jobs is None and limits.max_tokens is None:
        return
    _lock(connection, tenant)
    if max_jobs is not None:
        _check_jobs(connection, tenant, max_jobs)
    if limits.max_tokens is not None:
        expected = _open_tokens(connection, tenant) + tokens
        _check("max_tokens", limits.max_tokens, expected, "expected tokens of unfinished jobs")


def check_batch(connection: Connection, tenant: str) -> None:
    """Raise QuotaExceeded if a tenant may not add a batch, whose job is created later.

    Call it in the transaction that inserts the batch. Batches without a job count as jobs here.
    """
    limit = _limits(connection, tenant).max_jobs
    if limit is None:
        return
    _lock(connection, tenant)
    _check_jobs(connection, tenant, limit)


def check_file(connection: Connection, tenant: str, *, bytes: int) -> None:
    """Raise QuotaExceeded if a tenant may not keep one more file of so many bytes.

    Call it in the transaction that inserts the file.
    """
    limit = _limits(connection, tenant).max_bytes
    if limit is None:
        return
    _lock(connection, tenant)
    _check("max_bytes", limit, _kept_bytes(connection, tenant) + bytes, "bytes of files")


def room_for_file(connection: Connection, tenant: str, *, bytes: int) -> int:
    """Return how many bytes the next file may have; raise QuotaExceeded if they are fewer.

    It takes no lock: `check_file` decides when the file is inserted.
    """
    limit = _limits(connection, tenant).max_bytes
    if limit is None:
        return sys.maxsize
    kept = _kept_bytes(connection, tenant)
    _check("max_bytes", limit, kept + bytes, "bytes of files")
    return limit - kept


def quota_use(connection: Connection, tenant: str) -> QuotaUse:
    """Return what a tenant has of what its quotas limit."""
    return QuotaUse(
        jobs=_open_jobs(connection, tenant) + _open_batches(connection, tenant),
        tokens=_open_tokens(connection, tenant),
        bytes=_kept_bytes(connection, tenant),
    )


def _limits(connection: Connection, tenant: str) -> Quotas:
    row = connection.execute(select(tenants).where(tenants.c.id == tenant)).one_or_none()
    return Quotas() if row is None else Quotas.from_row(row)


def _lock(connection: Connection, tenant: str) -> None:
    # Only after this may be counted: a query sees what was committed before it began.
    connection.execute(select(tenants.c.id).where(tenants.c.id == tenant).with_for_update())


def _check(quota: str, limit: int | None, number: int, what: str) -> None:
    if limit is not None and number > limit:
        raise QuotaExceeded(quota=quota, limit=limit, number=number, what=what)


def _check_jobs(connection: Connection, tenant: str, limit: int) -> None:
    number = _open_jobs(connection, tenant) + _open_batches(connection, tenant) + 1
    _check("max_jobs", limit, number, "unfinished jobs")


def _open_jobs(connection: Connection, tenant: str) -> int:
    query = select(func.count()).select_from(jobs)
    mine = query.where(jobs.c.tenant_id == tenant, jobs.c.ended_at.is_(None))
    return int(connection.execute(mine).scalar_one())


def _open_tokens(connection: Connection, tenant: str) -> int:
    tokens = cast(func.coalesce(func.sum(jobs.c.expected_tokens), 0), BigInteger)
    mine = select(tokens).where(jobs.c.tenant_id == tenant, jobs.c.ended_at.is_(None))
    return int(connection.execute(mine).scalar_one())


def _open_batches(connection: Connection, tenant: str) -> int:
    without_job = (
        batches.c.job_id.is_(None),
        batches.c.failed_at.is_(None),
        batches.c.cancelled_at.is_(None),
        batches.c.ended.is_(None),
    )
    query = select(func.count()).select_from(batches)
    mine = query.where(batches.c.tenant_id == tenant, *without_job)
    return int(connection.execute(mine).scalar_one())


def _kept_bytes(connection: Connection, tenant: str) -> int:
    kept = cast(func.coalesce(func.sum(files.c.bytes), 0), BigInteger)
    mine = select(kept).where(files.c.tenant_id == tenant, files.c.input_sha256.is_not(None))
    return int(connection.execute(mine).scalar_one())

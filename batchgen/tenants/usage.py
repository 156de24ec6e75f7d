"""Usage: sums over ended jobs by tenant, key and model. A removed job still counts.

job ends ──┬─ one transaction
usage += ──┘
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Connection, select

from batchgen.database.tables import totals, upsert
from batchgen.database.tenant_tables import usage
from batchgen.database.transactions import Manager, reading

if TYPE_CHECKING:
    from sqlalchemy import Row

NO_KEY: Final = ""  # in the column of the key: submitted without one


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """The usage of the ended jobs of one tenant, key and model."""

    tenant_id: str
    # None for what was submitted without a key
    key_id: str | None
    model: str
    jobs: int
    # rows that have an answer, and rows that were computed and have an error
    rows_ok: int
    rows_err: int
    prompt_tokens: int
    completion_tokens: int
    # of the prompt tokens
    cached_tokens: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of usage."""
        values = {field.name: row._mapping[field.name] for field in fields(cls)}
        return cls(**{**values, "key_id": row.key_id or None})


UsageRecords = list[UsageRecord]


class UsageManager(Manager):
    """The transactions that read the usage."""

    @reading
    def list(self, connection: Connection, *, tenant: str | None = None) -> UsageRecords:
        """Return the usage of a tenant, or of all, by tenant, key and model."""
        query = select(usage).order_by(usage.c.tenant_id, usage.c.key_id, usage.c.model)
        if tenant is not None:
            query = query.where(usage.c.tenant_id == tenant)
        return [UsageRecord.from_row(row) for row in connection.execute(query)]


def add_job(
    connection: Connection, *, job_id: int, tenant: str, key_id: str | None, model: str
) -> None:
    """Add what a job has used, in the transaction that ends the job, and only there."""
    used = connection.execute(select(totals).where(totals.c.job_id == job_id)).one_or_none()
    if used is None:
        return
    counts = {
        "jobs": 1,
        "rows_ok": used.n_ok,
        "rows_err": used.n_err,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cached_tokens": used.cached_tokens,
    }
    whose = {"tenant_id": tenant, "key_id": key_id or NO_KEY, "model": model}
    added = upsert(connection, usage).values(**whose, **counts)
    sums = {name: usage.c[name] + count for name, count in counts.items()}
    connection.execute(added.on_conflict_do_update(index_elements=list(whose), set_=sums))

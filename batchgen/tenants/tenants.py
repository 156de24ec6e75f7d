"""Tenants: those who own jobs, files and keys, each apart from all others."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, select, update

from batchgen.database.database import now_db
from batchgen.database.tables import upsert
from batchgen.database.tenant_tables import tenants
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.errors import InvalidParameter, TenantNotFound
from batchgen.tenants.quotas import Quotas, QuotaUse, quota_use

if TYPE_CHECKING:
    from sqlalchemy import Row

MOST_JOBS = (1 << 31) - 1
MOST = (1 << 63) - 1

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRecord:
    """One tenant."""

    id: str
    created_at: float
    quotas: Quotas

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of tenants."""
        return cls(id=row.id, created_at=row.created_at, quotas=Quotas.from_row(row))


TenantRecords = list[TenantRecord]


class TenantManager(Manager):
    """The transactions on tenants."""

    def add(self, name: str) -> TenantRecord:
        """Add a tenant; it is no error if it exists. Raises InvalidParameter for a bad name."""
        if _NAME.fullmatch(name) is None:
            raise InvalidParameter(
                f"{name!r} cannot name a tenant. Use up to 64 of the characters a-z, 0-9, ., _ "
                "and -, with a letter or a digit first.",
                param="tenant",
            )
        return self._add(name)

    @repeatable
    def _add(self, connection: Connection, name: str) -> TenantRecord:
        added = upsert(connection, tenants).values(id=name, created_at=now_db())
        connection.execute(added.on_conflict_do_nothing())
        return _get(connection, name)

    @reading
    def get(self, connection: Connection, name: str) -> TenantRecord:
        """Return a tenant; raise TenantNotFound."""
        return _get(connection, name)

    @reading
    def list(self, connection: Connection) -> TenantRecords:
        """Return all tenants by name."""
        rows = connection.execute(select(tenants).order_by(tenants.c.id))
        return [TenantRecord.from_row(row) for row in rows]

    def set_quotas(self, name: str, quotas: Quotas) -> TenantRecord:
        """Replace the quotas of a tenant; what it already has stays.

        Raises TenantNotFound, and InvalidParameter for a number that is not stored.
        """
        for quota, limit in asdict(quotas).items():
            highest = MOST_JOBS if quota == "max_jobs" else MOST
            if limit is not None and not 0 <= limit <= highest:
                raise InvalidParameter(f"{quota} may be 0 to {highest:,}.", param=quota)
        return self._set_quotas(name, quotas)

    @repeatable
    def _set_quotas(self, connection: Connection, name: str, quotas: Quotas) -> TenantRecord:
        changed = update(tenants).where(tenants.c.id == name).values(**asdict(quotas))
        connection.execute(changed)
        return _get(connection, name)

    @reading
    def use(self, connection: Connection, name: str) -> QuotaUse:
        """Return what a tenant has now of what its quotas limit."""
        return quota_use(connection, name)


def _get(connection: Connection, name: str) -> TenantRecord:
    row = connection.execute(select(tenants).where(tenants.c.id == name)).one_or_none()
    if row is None:
        raise TenantNotFound(f"No tenant {name!r}. See `batchgen tenants ls`.")
    return TenantRecord.from_row(row)

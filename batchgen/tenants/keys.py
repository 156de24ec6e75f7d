"""API keys: made once, shown once, checked at each request, revoked."""

from __future__ import annotations

import hmac
from collections.abc import Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, func, insert, select, update

from batchgen.database.database import Database, now_db
from batchgen.database.tables import storable
from batchgen.database.tenant_tables import api_keys, tenants
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.errors import InvalidParameter, KeyNotFound, TenantNotFound
from batchgen.tenants.key_text import digest_of, key_id_of, new_key
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.principal import DEFAULT_SCOPES, Principal, Scope

if TYPE_CHECKING:
    from sqlalchemy import Row

NAME_LIMIT = 200  # characters
NO_DIGEST = "0" * 64  # compared with if there is no such key, so that both cases do the same work


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as the store knows it: everything but its secret."""

    id: str
    tenant: str
    name: str | None
    scopes: frozenset[Scope]
    created_at: float
    # None while it is valid
    revoked_at: float | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of keys."""
        return cls(
            id=row.id,
            tenant=row.tenant_id,
            name=row.name,
            scopes=_scopes(row.scopes),
            created_at=row.created_at,
            revoked_at=row.revoked_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made."""

    record: KeyRecord
    # the whole key, which only this answer shows
    key: str = field(repr=False)


KeyRecords = list[KeyRecord]


class KeyManager(Manager):
    """The transactions on keys."""

    def __init__(self, database: Database, pepper: Pepper) -> None:
        super().__init__(database)
        self._pepper = pepper

    def create(
        self, tenant: str, *, scopes: Set[Scope] = DEFAULT_SCOPES, name: str | None = None
    ) -> NewKey:
        """Make a key of a tenant. Only the result has its text; the store keeps a digest.

        Raises TenantNotFound, and InvalidParameter for a name that cannot be stored.
        """
        if name is not None and (storable(name) != name or not 0 < len(name) <= NAME_LIMIT):
            raise InvalidParameter(
                f"The name of a key has 1 to {NAME_LIMIT} characters.", param="name"
            )
        assert scopes, "a key without a right would be of no use"
        key = new_key()
        record = self._insert(tenant, key, digest_of(key, self._pepper.ensure()), scopes, name)
        return NewKey(record=record, key=key)

    def authenticate(self, key: str) -> Principal | None:
        """Return the principal that a key proves, None if it is not a valid key.

        An unknown, a wrong and a revoked key take the same work.
        """
        key_id, pepper = key_id_of(key), self._pepper.read()
        if key_id is None or pepper is None:
            return None
        row = self._row(key_id)
        digest = NO_DIGEST if row is None else row.digest
        is_right = hmac.compare_digest(digest_of(key, pepper), digest)
        if row is None or not is_right or row.revoked_at is not None:
            return None
        return Principal(tenant=row.tenant_id, key_id=row.id, scopes=_scopes(row.scopes))

    @reading
    def list(self, connection: Connection, *, tenant: str | None = None) -> KeyRecords:
        """Return the keys of a tenant, or all keys, oldest first; revoked keys too."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant_id == tenant)
        return [KeyRecord.from_row(row) for row in connection.execute(query)]

    @repeatable
    def revoke(
        self, connection: Connection, key_id: str, *, tenant: str | None = None
    ) -> KeyRecord:
        """Make a key invalid for ever; it is no error to do so twice. Raises KeyNotFound.

        With `tenant`, a key of another tenant is not found.
        """
        query = update(api_keys).where(api_keys.c.id == key_id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant_id == tenant)
        revoked = query.values(revoked_at=func.coalesce(api_keys.c.revoked_at, now_db()))
        row = connection.execute(revoked.returning(api_keys)).one_or_none()
        if row is None:
            raise KeyNotFound
        return KeyRecord.from_row(row)

    @reading
    def _row(self, connection: Connection, key_id: str) -> Row[Any] | None:
        return connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()

    @transaction
    def _insert(
        self,
        connection: Connection,
        tenant: str,
        key: str,
        digest: str,
        scopes: Set[Scope],
        name: str | None,
    ) -> KeyRecord:
        known = select(tenants.c.id).where(tenants.c.id == tenant)
        if connection.execute(known).one_or_none() is None:
            raise TenantNotFound(f"No tenant {tenant!r}. See `batchgen tenants ls`.")
        added = insert(api_keys).values(
            id=key_id_of(key),
            tenant_id=tenant,
            name=name,
            digest=digest,
            scopes=" ".join(scope for scope in Scope if scope in scopes),
            created_at=now_db(),
        )
        return KeyRecord.from_row(connection.execute(added.returning(api_keys)).one())


def _scopes(words: str) -> frozenset[Scope]:
    return frozenset(Scope(word) for word in words.split())

"""Tenants of the service: their keys, their quotas and their usage."""

from __future__ import annotations

from collections.abc import Set

from batchgen.database.database import Database
from batchgen.jobs.records.job_records import LOCAL_TENANT
from batchgen.storage.storage import LocalStorage
from batchgen.tenants.keys import KeyManager, NewKey
from batchgen.tenants.local_key import local_key
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.principal import DEFAULT_SCOPES, Principal, Scope
from batchgen.tenants.tenants import TenantManager
from batchgen.tenants.usage import UsageManager


class Access:
    """Operates on the tenants and keys of one store, for its operator.

    access.tenants.add("research")
    new = access.create_key("research")
    access.authenticate(new.key)
    """

    def __init__(self, database: Database, storage: LocalStorage) -> None:
        self.tenants = TenantManager(database)
        self.keys = KeyManager(database, Pepper(storage.root))
        self.usage = UsageManager(database)
        self._storage = storage

    def authenticate(self, key: str) -> Principal | None:
        """Return the principal that a key proves, None if it is not a valid key."""
        return self.keys.authenticate(key)

    def create_key(
        self, tenant: str, *, scopes: Set[Scope] = DEFAULT_SCOPES, name: str | None = None
    ) -> NewKey:
        """Make a key of a tenant; only the result has its text.

        Raises TenantNotFound, InvalidParameter for a bad name, and StoreMismatch if the home is not
        the database's: a server with the right home could not check the key.
        """
        self._storage.establish()
        return self.keys.create(tenant, scopes=scopes, name=name)

    def local_key(self) -> str:
        """Return the key of the local stack, made at its first start; see `tenants.local_key`."""
        self._storage.establish()
        return local_key(self.keys, self._storage.root, LOCAL_TENANT)

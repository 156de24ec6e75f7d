"""Who may use the service: tenants and their keys."""

from __future__ import annotations

from pathlib import Path

from batchgen.database.database import Database
from batchgen.jobs.job_records import LOCAL_TENANT
from batchgen.tenants.keys import KeyManager
from batchgen.tenants.local_key import local_key
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.principal import Principal
from batchgen.tenants.tenants import TenantManager
from batchgen.tenants.usage import UsageManager


class Access:
    """Operates on the tenants and keys of one store, for its operator.

    access.tenants.add("research")
    new = access.keys.create("research")
    access.authenticate(new.key)
    """

    def __init__(self, database: Database, home: Path) -> None:
        self.tenants = TenantManager(database)
        self.keys = KeyManager(database, Pepper(home))
        self.usage = UsageManager(database)
        self._home = home

    def authenticate(self, key: str) -> Principal | None:
        """Return the principal that a key proves, None if it is not a valid key."""
        return self.keys.authenticate(key)

    def local_key(self) -> str:
        """Return the key of the local stack, made at its first start; see `tenants.local_key`."""
        return local_key(self.keys, self._home, LOCAL_TENANT)

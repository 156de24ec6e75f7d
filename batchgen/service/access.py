"""Who may use the service: tenants and their keys."""

from __future__ import annotations

from pathlib import Path

from batchgen.database.database import Database
from batchgen.tenants.keys import KeyManager
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.principal import Principal
from batchgen.tenants.tenants import TenantManager


class Access:
    """Operates on the tenants and keys of one store, for its operator.

    access.tenants.add("research")
    new = access.keys.create("research")
    access.authenticate(new.key)
    """

    def __init__(self, database: Database, home: Path) -> None:
        self.tenants = TenantManager(database)
        self.keys = KeyManager(database, Pepper(home))

    def authenticate(self, key: str) -> Principal | None:
        """Return the principal that a key proves, None if it is not a valid key."""
        return self.keys.authenticate(key)

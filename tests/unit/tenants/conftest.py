"""A home's pepper, and managers on an empty database."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.database.database import Database
from batchgen.tenants.keys import KeyManager
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.tenants import TenantManager


@pytest.fixture
def keys(database: Database, tmp_path: Path) -> KeyManager:
    """The keys of a fresh home with a tenant `acme` beside `local`."""
    TenantManager(database).add("acme")
    return KeyManager(database, Pepper(tmp_path / "home"))

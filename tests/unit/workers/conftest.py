"""Workers are tested on one database: `tests/unit/jobs` has every statement on both."""

from __future__ import annotations

import pytest

from batchgen.database.database import Database
from batchgen.jobs.store import Store


@pytest.fixture
def store(sqlite_url: str) -> Store:
    """A store on an empty SQLite database."""
    return Store(Database(sqlite_url))

"""Databases and stores for tests: each test gets a fresh one, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen_migrations import upgrade


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path) -> Iterator[str]:
    """A fresh SQLite database with the newest schema, in memory where the system allows it."""
    with tempfile.TemporaryDirectory(prefix="bgsq-", dir=_fastest_folder()) as folder:
        path = Path(folder) / "batchgen.db"
        shutil.copyfile(sqlite_template, path)
        yield f"sqlite:///{path}"


def _fastest_folder() -> str | None:
    # a commit waits for the disk, a hundred times in one test
    memory = Path("/dev/shm")  # noqa: S108
    return str(memory) if os.access(memory, os.W_OK | os.X_OK) else None


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database with the newest schema, on each of the two.

    On PostgreSQL it is one for the whole session: a test that changes the schema, or leaves
    processes behind, takes `postgres_url`.
    """
    names = {"sqlite": "sqlite_url", "postgresql": "emptied_postgres_url"}
    url: str = request.getfixturevalue(names[request.param])
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database, open."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    """A store on an empty database."""
    return Store(database)


@pytest.fixture
def emptied_postgres_store(emptied_postgres_url: str) -> Iterator[Store]:
    """A store on PostgreSQL alone, for what SQLite does not have."""
    store = Store(Database(emptied_postgres_url))
    yield store
    store.close()

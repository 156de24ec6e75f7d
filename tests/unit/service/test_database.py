from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.database.revisions import HEAD, REVISIONS
from batchgen.errors import DatabaseUnavailable, SchemaMismatch, Unavailable
from batchgen.models import Registry
from batchgen.service.database import current, open_database, upgrade
from batchgen.settings import Settings
from batchgen_migrations import downgrade
from tests.support.permissions import mode
from tests.unit.models.folders import model_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home that does not exist yet."""
    return Settings(home=tmp_path / "deep" / "home")


def test_a_fresh_home_makes_itself(settings: Settings) -> None:
    assert current(settings) is None
    assert not settings.home.exists()
    open_database(settings).close()
    assert current(settings) == HEAD
    open_database(settings).close()


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_a_fresh_home_is_its_owner_s(
    settings: Settings, umask: Callable[[int], None], mask: int
) -> None:
    umask(mask)
    open_database(settings).close()
    assert mode(settings.home) == 0o700
    assert mode(settings.home.parent) == 0o777 & ~mask
    elsewhere = settings.home.parent / "elsewhere" / "jobs.db"
    upgrade(settings.model_copy(update={"database_url": f"sqlite:///{elsewhere}"}))
    assert mode(elsewhere.parent) == 0o700
    third = settings.home.parent / "third"
    Registry(third / "models").import_model("tiny", model_folder(settings.home.parent / "source"))
    assert mode(third) == 0o700


def test_a_home_of_an_earlier_version_is_upgraded_on_the_way(settings: Settings) -> None:
    open_database(settings).close()
    downgrade(settings.effective_database_url, REVISIONS[0])
    assert current(settings) == REVISIONS[0] != HEAD
    open_database(settings).close()
    assert current(settings) == HEAD


def test_a_named_database_is_only_checked(settings: Settings, tmp_path: Path) -> None:
    named = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/named.db"})
    with pytest.raises((SchemaMismatch, DatabaseUnavailable)):
        open_database(named)
    assert not (tmp_path / "named.db").exists()
    assert upgrade(named) == HEAD
    open_database(named).close()


def test_postgresql_is_upgraded_by_its_owner(settings: Settings, postgres_url: str) -> None:
    served = settings.model_copy(update={"database_url": postgres_url})
    downgrade(postgres_url, "base")
    with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
        open_database(served)
    assert current(served) is None
    assert upgrade(served) == HEAD
    open_database(served).close()


@pytest.mark.parametrize("revision", ["9999", "0000"])
def test_a_schema_nobody_knows_is_left_alone(settings: Settings, revision: str) -> None:
    open_database(settings).close()
    with closing(sqlite3.connect(settings.home / "batchgen.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    for attempt in (open_database, upgrade):
        with pytest.raises(SchemaMismatch, match="newer"):
            attempt(settings)
    assert current(settings) == revision


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="BATCHGEN_HOME"):
        open_database(Settings(home=tmp_path / "file" / "home"))

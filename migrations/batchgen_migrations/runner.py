"""Runs the migrations in one transaction, one runner at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from batchgen.database.database import Database
from batchgen.database.revisions import REVISIONS
from batchgen.database.tables import metadata
from batchgen.storage.durable_files import make_private

#: The id of the lock that keeps two runners apart on PostgreSQL.
ADVISORY_LOCK = 0x6261746368  # "batch"


def upgrade(url: str) -> str:
    """Upgrade the database to the newest schema and return its revision; create an SQLite file.

    If it is killed half-way, the database is unchanged. Raises DatabaseUnavailable, and
    SchemaMismatch if the database is newer than this code.
    """
    with closing(Database.create(url)) as database:
        if database.file is not None:
            make_private(database.file.parent)
        if database.revision() not in (None, *REVISIONS):
            database.check_schema()
        with _migrating(database) as config:
            command.upgrade(config, "head")
        database.check_schema()
        return REVISIONS[-1]


def downgrade(url: str, revision: str) -> None:
    """Downgrade the schema to `revision`, "base" for no tables; data in dropped columns is lost."""
    with closing(Database(url)) as database, _migrating(database) as config:
        command.downgrade(config, revision)


def current(url: str) -> str | None:
    """Return the revision of the database, None if it has no schema; write nothing."""
    with closing(Database(url)) as database:
        return database.revision()


def check(url: str) -> list[str]:
    """Return every difference between the tables in the code and those in the database."""
    with closing(Database(url)) as database, database.begin_reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return [repr(difference) for difference in compare_metadata(context, metadata)]


@contextmanager
def _migrating(database: Database) -> Iterator[Config]:
    """Yield Alembic's configuration, in one transaction and under a lock against other runners."""
    with database.begin() as connection:
        _lock(connection)
        config = Config()
        config.set_main_option("script_location", str(files("batchgen_migrations")))
        config.attributes["connection"] = connection
        yield config


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=ADVISORY_LOCK))

"""Open the database. SQLite in the home is created and upgraded, PostgreSQL only checked."""

from __future__ import annotations

from contextlib import closing

from batchgen.database.database import Database
from batchgen.database.revisions import HEAD, REVISIONS
from batchgen.errors import BatchgenError, Unavailable
from batchgen.service.exposure import check_database
from batchgen.settings import Settings
from batchgen.storage.durable_files import make_private

__all__ = ["HEAD", "current", "open_database", "upgrade"]


def open_database(settings: Settings) -> Database:
    """Open the database with the schema of this version.

    The home's own SQLite file is created and upgraded if needed. A database of `database_url` is
    only checked.

    Raises:
        DatabaseUnavailable: the database cannot be reached, or is damaged.
        SchemaMismatch: its schema is older (`batchgen db upgrade`) or newer than this version's.
        InvalidParameter: the URL is invalid, or names a server without password or TLS.
        Unavailable: the home folder cannot be created.
    """
    check_database(settings)
    if not settings.database_url:
        found = current(settings)
        if found is None or (found in REVISIONS and found != HEAD):
            upgrade(settings)
    database = Database(settings.effective_database_url)
    try:
        database.check_schema()
    except BatchgenError:
        database.close()
        raise
    return database


def upgrade(settings: Settings) -> str:
    """Upgrade the schema to that of this version and return its revision.

    Raises DatabaseUnavailable, SchemaMismatch (a newer schema), InvalidParameter (the URL) or
    Unavailable (the home folder).
    """
    check_database(settings)
    # importing Alembic is slow, and a home is rarely upgraded
    from batchgen_migrations import upgrade as migrate

    if not settings.database_url:
        make_home(settings)
    migrate(settings.effective_database_url)
    return HEAD


def current(settings: Settings) -> str | None:
    """Return the schema revision of the database, None if it has no schema."""
    check_database(settings)
    with closing(Database(settings.effective_database_url)) as database:
        return database.revision()


def make_home(settings: Settings) -> None:
    """Create the home folder, for its owner only; raise Unavailable if that fails."""
    try:
        make_private(settings.home)
    except OSError as error:
        raise Unavailable(
            f"The home folder {settings.home} cannot be made: {error.strerror}. "
            "Name another one with --home or BATCHGEN_HOME."
        ) from error

"""Translate errors of the database driver into BatchgenErrors that say if a retry is safe."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sqlalchemy.exc import DatabaseError as AnyDatabaseError
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from batchgen.errors import BatchgenError, DatabaseDamaged, DatabaseUnavailable, SchemaMismatch

# SQLSTATE: serialization failure, deadlock, lock timeout, statement timeout
ROLLED_BACK = {"40001", "40P01", "55P03", "57014"}
UNDEFINED_TABLE, UNDEFINED_COLUMN = "42P01", "42703"
SQLITE_ROLLED_BACK = ("SQLITE_BUSY", "SQLITE_LOCKED")
SQLITE_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
SQLITE_REMEDIES = {
    "SQLITE_FULL": "Its disk has no room left: make room and give the command again.",
    "SQLITE_IOERR": "Its disk fails or has no room left: see `df` and the system's log.",
    "SQLITE_CANTOPEN": "Check that the file is there and that its folder may be written to.",
    "SQLITE_READONLY": "Check that the file and its folder may be written to.",
}
POSTGRESQL_REMEDIES = {
    "53100": "The server's disk has no room left: make room there.",
    "58030": "The server's disk fails or has no room left: see the server's log.",
    "25006": "The server takes no writes: name its primary in BATCHGEN_DATABASE_URL.",
    "53300": "The server has too many connections: raise max_connections, or run fewer workers.",
    "28P01": "Check user and password in BATCHGEN_DATABASE_URL.",
    "28000": "Check user and password in BATCHGEN_DATABASE_URL.",
    "3D000": "Create the database, or name another in BATCHGEN_DATABASE_URL.",
}
MESSAGE_LIMIT = 300  # characters of the driver's message


class Conflict(DatabaseUnavailable):
    """The database is busy: it rolled this transaction back. Try again."""


def translate(
    error: SQLAlchemyError, *, database: str, secrets: Sequence[str]
) -> BatchgenError | None:
    """Return the error to raise instead, None if `error` is a bug of batchgen.

    The message names `database`; `secrets` (passwords) are removed from the driver's text.
    """
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"{database}: no connection became free in time.")
    if not isinstance(error, DBAPIError):
        return None
    words = _driver_message(error, secrets)
    if _missing_table(error):
        return SchemaMismatch(
            f"{database} does not have the schema of this version ({words}). "
            "Run `batchgen db upgrade`."
        )
    if _rolled_back(error):
        return Conflict(f"{database} is busy: {words}. Try again.")
    if _sqlite_error(error).startswith(SQLITE_DAMAGED):
        return DatabaseDamaged(
            f"{database} is not an SQLite database, or it is damaged ({words}). "
            "Nothing was written. Restore it from a backup, or move it away."
        )
    if isinstance(error, OperationalError | InterfaceError | InternalError) or _is_plain(error):
        return DatabaseUnavailable(f"{database} cannot be used: {words}. {_remedy(error)}")
    return None


def _remedy(error: DBAPIError) -> str:
    if isinstance(error.orig, sqlite3.Error):
        name = "_".join(_sqlite_error(error).split("_")[:2])  # of SQLITE_IOERR_WRITE: SQLITE_IOERR
        return SQLITE_REMEDIES.get(name, "Check the file and its disk.")
    unknown = "Check BATCHGEN_DATABASE_URL and that the server runs."
    return POSTGRESQL_REMEDIES.get(_sqlstate(error), unknown)


def _driver_message(error: DBAPIError, secrets: Sequence[str]) -> str:
    said = " ".join(str(error.orig).split())
    for secret in secrets:
        said = said.replace(secret, "***")
    return said[:MESSAGE_LIMIT].rstrip(".")


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _sqlite_error(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlite_errorname", None) or ""


def _missing_table(error: DBAPIError) -> bool:
    missing_in_sqlite = str(error.orig).startswith(("no such table", "no such column"))
    return missing_in_sqlite or _sqlstate(error) in (UNDEFINED_TABLE, UNDEFINED_COLUMN)


def _rolled_back(error: DBAPIError) -> bool:
    in_sqlite = _sqlite_error(error).startswith(SQLITE_ROLLED_BACK)
    return in_sqlite or _sqlstate(error) in ROLLED_BACK


def _is_plain(error: DBAPIError) -> bool:
    # sqlite3 raises DatabaseError itself, no subclass, for some faults of the file
    return type(error) is AnyDatabaseError

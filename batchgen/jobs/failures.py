"""What a failing database means: which of our errors, and whether trying again is safe."""

from __future__ import annotations

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
MESSAGE_LIMIT = 300  # characters of the driver's own words


class Conflict(DatabaseUnavailable):
    """The database is busy: it rolled this transaction back. Try again."""


def translate(error: SQLAlchemyError, *, database: str, secret: str) -> BatchgenError | None:
    """Return the error to raise instead, or None where `error` shows a bug of ours.

    `database` is shown to the user, `secret` (a password) is taken out of what the driver says.
    """
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"{database}: no connection became free in time.")
    if not isinstance(error, DBAPIError):
        return None
    words = _words(error, secret)
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
        return DatabaseUnavailable(
            f"{database} cannot be used: {words}. Check BATCHGEN_DATABASE_URL and that the "
            "server runs."
        )
    return None


def _words(error: DBAPIError, secret: str) -> str:
    said = " ".join(str(error.orig).split())[:MESSAGE_LIMIT].rstrip(".")
    return said.replace(secret, "***") if secret else said


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
    # sqlite3 raises the bare DatabaseError for some failures of the file itself
    return type(error) is AnyDatabaseError

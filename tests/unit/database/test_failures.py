from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from batchgen.database.failures import Conflict, translate
from batchgen.errors import BatchgenError, DatabaseUnavailable, SchemaMismatch


def translated(error: Any) -> BatchgenError | None:
    return translate(error, database="postgresql://db/batch", secrets=("hunter2", "p%2Fq"))


def wrapped(kind: type[DBAPIError], original: BaseException) -> DBAPIError:
    return kind("SELECT 1", None, original)


@pytest.mark.parametrize(
    "original",
    [
        psycopg.errors.DeadlockDetected("deadlock"),
        psycopg.errors.SerializationFailure("retry"),
        psycopg.errors.LockNotAvailable("lock timeout"),
        psycopg.errors.QueryCanceled("statement timeout"),
    ],
)
def test_what_the_server_rolled_back_is_a_conflict(original: psycopg.Error) -> None:
    assert isinstance(translated(wrapped(OperationalError, original)), Conflict)


@pytest.mark.parametrize(
    "original",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.errors.AdminShutdown("terminating connection"),
        psycopg.errors.TooManyConnections("sorry, too many clients"),
        sqlite3.OperationalError("disk I/O error"),
    ],
)
def test_other_failures_leave_the_outcome_open(original: Exception) -> None:
    found = translated(wrapped(OperationalError, original))
    assert isinstance(found, DatabaseUnavailable)
    assert not isinstance(found, Conflict)


def test_a_missing_table_is_a_missing_schema() -> None:
    missing = psycopg.errors.UndefinedTable('relation "jobs" does not exist')
    assert isinstance(translated(wrapped(ProgrammingError, missing)), SchemaMismatch)
    absent = sqlite3.OperationalError("no such table: jobs")
    assert isinstance(translated(wrapped(OperationalError, absent)), SchemaMismatch)


def test_the_password_is_taken_out_of_what_the_driver_says() -> None:
    said = psycopg.OperationalError('FATAL: role "hunter2" at hunter2@db')
    found = translated(wrapped(OperationalError, said))
    assert found is not None
    assert "hunter2" not in found.message
    assert "***" in found.message


class _NamedError(sqlite3.OperationalError):
    """An error with the name SQLite gives it, which Python fills in for its own."""

    def __init__(self, name: str) -> None:
        super().__init__("what SQLite says")
        self.sqlite_errorname = name


@pytest.mark.parametrize(
    ("original", "remedy"),
    [
        (_NamedError("SQLITE_FULL"), "no room left"),
        (_NamedError("SQLITE_IOERR_WRITE"), "no room left"),
        (_NamedError("SQLITE_CANTOPEN_ISDIR"), "its folder may be written to"),
        (_NamedError("SQLITE_READONLY_DIRECTORY"), "may be written to"),
        (_NamedError("SQLITE_NOLFS"), "Check the file"),
        (psycopg.errors.DiskFull("could not extend file"), "no room left"),
        (psycopg.errors.IoError("could not read"), "no room left"),
        (psycopg.errors.ReadOnlySqlTransaction("read-only"), "name its primary"),
        (psycopg.errors.TooManyConnections("sorry"), "fewer workers"),
        (psycopg.errors.InvalidPassword("no"), "Check user and password"),
        (psycopg.OperationalError("connection refused"), "that the server runs"),
    ],
)
def test_the_remedy_is_for_what_failed(original: Exception, remedy: str) -> None:
    kind = InternalError if "read" in str(original) else OperationalError
    found = translated(wrapped(kind, original))
    assert isinstance(found, DatabaseUnavailable)
    assert remedy in found.message
    of_sqlite = isinstance(original, sqlite3.Error)
    assert not (of_sqlite and ("server" in found.message or "URL" in found.message))


def test_no_free_connection_is_unavailable() -> None:
    assert isinstance(translated(PoolTimeout()), DatabaseUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(IntegrityError, psycopg.errors.UniqueViolation("duplicate key")),
        wrapped(ProgrammingError, psycopg.errors.SyntaxError("syntax error")),
        ResourceClosedError(),
    ],
)
def test_a_bug_of_ours_stays_what_it_is(error: Exception) -> None:
    assert translated(error) is None

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from batchgen.errors import BatchgenError, DatabaseUnavailable, SchemaMismatch
from batchgen.jobs.failures import Conflict, translate


def translated(error: Any) -> BatchgenError | None:
    return translate(error, database="postgresql://db/batch", secret="hunter2")


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

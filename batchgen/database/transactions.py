"""Decorators that turn each method of a manager into one transaction.

reading      only reads.
transaction  writes; it is repeated only if the database says that it rolled back.
repeatable   writes, and its body recognises that an earlier run succeeded. So it is also repeated
             if the outcome of COMMIT is unknown (connection lost, timeout).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from batchgen.database.database import Database
from batchgen.database.failures import Conflict
from batchgen.errors import DatabaseUnavailable

ATTEMPTS = 5
FIRST_PAUSE = 0.05  # seconds; doubles each time, with jitter
REPEAT_FOR = 20.0  # seconds after which a failure is not repeated


class Manager:
    """A group of transactions on one database, a part of the store."""

    def __init__(self, database: Database) -> None:
        self.database = database


P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Manager)

Body = Callable[Concatenate[M, Connection, P], R]
Method = Callable[Concatenate[M, P], R]


def reading(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in a transaction that only reads; repeat it if the connection was lost."""

    @wraps(body)
    def method(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        def once() -> R:
            with self.database.begin_reading() as connection:
                return body(self, connection, *args, **kwargs)

        return _repeat(once, DatabaseUnavailable)

    return method


def transaction(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in one transaction; repeat it only if it certainly rolled back."""
    return _writing(body, Conflict, IntegrityError)


def repeatable(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in one transaction; repeat it even if the first one may have committed."""
    return _writing(body, DatabaseUnavailable, IntegrityError)


def _writing(body: Body[M, P, R], *again: type[Exception]) -> Method[M, P, R]:
    @wraps(body)
    def method(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        def once() -> R:
            with self.database.begin() as connection:
                return body(self, connection, *args, **kwargs)

        return _repeat(once, *again)

    return method


def _repeat(once: Callable[[], R], *again: type[Exception]) -> R:
    """Call `once` again, within limits, while it raises one of `again`.

    IntegrityError is one of them: if two submits with one key meet in the UNIQUE index, the second
    run finds the row that the other one inserted.
    """
    deadline = time.monotonic() + REPEAT_FOR
    for attempt in range(ATTEMPTS - 1):
        try:
            return once()
        except again:
            if time.monotonic() > deadline:
                raise
            pause(attempt)
    return once()


def pause(attempt: int) -> None:
    """Wait before the repetition after `attempt` (0 is the first)."""
    time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311

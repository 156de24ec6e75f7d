"""One method, one transaction: the decorators every manager of the store is built from.

reading      only reads.
transaction  writes; repeated only where the database says that it rolled back.
repeatable   writes and recognises its own earlier success, so that it is also repeated where the
             outcome of COMMIT is unknown (connection lost, timeout). It never guesses.
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
REPEAT_FOR = 20.0  # seconds after which a failure is not tried again


class Manager:
    """A part of the store: some transactions over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database


P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Manager)

Body = Callable[Concatenate[M, Connection, P], R]
Method = Callable[Concatenate[M, P], R]


def reading(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in a transaction that only reads; a lost connection is tried again."""

    @wraps(body)
    def method(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        def once() -> R:
            with self.database.begin_reading() as connection:
                return body(self, connection, *args, **kwargs)

        return _repeat(once, DatabaseUnavailable)

    return method


def transaction(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in one transaction; repeat it only where it certainly rolled back."""
    return _writing(body, Conflict, IntegrityError)


def repeatable(body: Body[M, P, R]) -> Method[M, P, R]:
    """Run the method in one transaction that may be repeated whatever became of the first."""
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
    """Call `once` until it ends otherwise than by one of `again`, a bounded number of times.

    An IntegrityError is in the list because two submits with one key meet in the UNIQUE index:
    the second run finds what the first inserted.
    """
    give_up = time.monotonic() + REPEAT_FOR
    for attempt in range(ATTEMPTS - 1):
        try:
            return once()
        except again:
            if time.monotonic() > give_up:
                raise
            pause(attempt)
    return once()


def pause(attempt: int) -> None:
    """Wait before the repetition after `attempt` (0 is the first)."""
    time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311

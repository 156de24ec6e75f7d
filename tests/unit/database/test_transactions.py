from __future__ import annotations

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from batchgen.database import transactions
from batchgen.database.database import Database
from batchgen.database.failures import Conflict
from batchgen.database.transactions import ATTEMPTS, Manager, reading, repeatable, transaction
from batchgen.errors import DatabaseUnavailable, Fenced


class Failing(Manager):
    """Fails in the way and as often as told, then answers."""

    def __init__(self, database: Database, *errors: Exception) -> None:
        super().__init__(database)
        self.errors = list(errors)
        self.calls = 0

    def _attempt(self, connection: Connection) -> str:
        self.calls += 1
        connection.execute(text("SELECT 1"))
        if self.errors:
            raise self.errors.pop()
        return "done"

    @reading
    def read(self, connection: Connection) -> str:
        return self._attempt(connection)

    @transaction
    def write(self, connection: Connection) -> str:
        return self._attempt(connection)

    @repeatable
    def write_again(self, connection: Connection) -> str:
        return self._attempt(connection)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "pause", lambda attempt: None)


@pytest.mark.parametrize("method", ["read", "write", "write_again"])
def test_a_conflict_is_tried_again(database: Database, method: str) -> None:
    manager = Failing(database, Conflict(), Conflict())
    assert getattr(manager, method)() == "done"
    assert manager.calls == 3


@pytest.mark.parametrize("method", ["read", "write_again"])
def test_an_unknown_outcome_is_tried_again_where_that_is_safe(
    database: Database, method: str
) -> None:
    manager = Failing(database, DatabaseUnavailable())
    assert getattr(manager, method)() == "done"
    assert manager.calls == 2


def test_an_unknown_outcome_is_not_tried_again_elsewhere(database: Database) -> None:
    manager = Failing(database, DatabaseUnavailable())
    with pytest.raises(DatabaseUnavailable):
        manager.write()
    assert manager.calls == 1


@pytest.mark.parametrize("method", ["read", "write", "write_again"])
def test_patience_ends(database: Database, method: str) -> None:
    manager = Failing(database, *[Conflict() for _ in range(ATTEMPTS + 5)])
    with pytest.raises(Conflict):
        getattr(manager, method)()
    assert manager.calls == ATTEMPTS


def test_patience_ends_by_the_clock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "REPEAT_FOR", -1.0)
    manager = Failing(database, Conflict())
    with pytest.raises(Conflict):
        manager.write_again()
    assert manager.calls == 1


@pytest.mark.parametrize("method", ["read", "write", "write_again"])
def test_being_fenced_is_an_answer(database: Database, method: str) -> None:
    manager = Failing(database, Fenced())
    with pytest.raises(Fenced):
        getattr(manager, method)()
    assert manager.calls == 1


def test_two_that_meet_in_an_index_are_sorted_out(database: Database) -> None:
    manager = Failing(database, IntegrityError("INSERT", None, Exception("unique")))
    assert manager.write_again() == "done"
    assert manager.calls == 2

"""The identity of the store: the folder of files that a database belongs to.

SQL    identity.store  ═══  <home>/store-id      one id in two places, from the first submit on

A process that finds another store, or none, must not conclude from missing files that a job failed
or that data is damaged. A database or home that has no id yet gets one from the first process that
finds files of the database's jobs in the home.
"""

from __future__ import annotations

import socket
from pathlib import Path

from sqlalchemy import Connection, select

from batchgen.database.database import Database
from batchgen.database.tables import identity, jobs, upsert
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.errors import StoreMismatch
from batchgen.storage.storage import LocalStorage
from batchgen.storage.store_id import STORE_ID, ensure_store_id, read_store_id

JOBS_LOOKED_AT = 100  # newest first; their files show that a home belongs to the database

Keys = list[str]


def open_storage(database: Database, home: Path) -> LocalStorage:
    """Return the storage of a home that checks that the home is the database's store."""
    return LocalStorage(home, StoreIdentity(database, home))


class StoreIdentity:
    """Checks that one folder is the store of one database. It is safe to share between threads.

    Implements `batchgen.storage.storage.Guard`.
    """

    def __init__(self, database: Database, home: Path) -> None:
        self._shown = database.shown
        self._home = home
        self._rows = IdentityManager(database)
        # It never changes in SQL, so it is read once.
        self._store: str | None = None
        self._place = ""

    def check(self) -> bool:
        """Raise StoreMismatch unless the folder is the database's store.

        Returns False if the database has no store yet, because it has no job. Also raises
        DatabaseUnavailable until the id of the store has been read once.
        """
        if self._store is None and not self._look():
            return False
        found = read_store_id(self._home)
        if found != self._store:
            raise StoreMismatch(self._difference(found))
        return True

    def establish(self) -> None:
        """Make the folder the store of a database that has none; raise StoreMismatch as `check`."""
        if self._store is None and self._rows.read() is None:
            self._claim()
        self.check()

    def _look(self) -> bool:
        """Read or assign the database's store; return False if it has none and needs none yet."""
        known = self._rows.read()
        if known is None:
            if not self._rows.files():
                return False
            self._claim()
            known = self._rows.read()
            assert known is not None, "it was written just now"
        self._store, self._place = known
        return True

    def _claim(self) -> None:
        expected = self._rows.files()
        if expected and not any((self._home / key).exists() for key in expected):
            raise StoreMismatch(
                f"{self._home} holds no file of any job of {self._shown}. Set BATCHGEN_HOME to the "
                "home that the jobs were submitted from, and see that its disk is mounted."
            )
        store = ensure_store_id(self._home)
        if store is None:
            raise StoreMismatch(
                f"{self._home / STORE_ID} holds no id. Restore it from a backup of the home, or "
                "remove it where there is none."
            )
        self._rows.claim(store, place=f"{socket.gethostname()}:{self._home.absolute()}")

    def _difference(self, found: str | None) -> str:
        message = (
            f"The database {self._shown} belongs to the store {self._store}, first used as "
            f"{self._place}; {self._home} "
        )
        if found is not None:
            return (
                f"{message}is the store {found}. Set BATCHGEN_HOME to the home that all processes "
                "of this database share, or name the other database."
            )
        return (
            f"{message}is not there, or has no file {STORE_ID}. See that BATCHGEN_HOME is right "
            "and its disk is mounted; docs/several-machines.md says how to share a home."
        )


class IdentityManager(Manager):
    """The transactions on the row that names the store."""

    @reading
    def read(self, connection: Connection) -> tuple[str, str] | None:
        """Return the id of the database's store and the place of its first use, None if unset."""
        row = connection.execute(select(identity.c.store, identity.c.place)).one_or_none()
        return None if row is None else (row.store, row.place)

    @repeatable
    def claim(self, connection: Connection, store: str, *, place: str) -> None:
        """Set the store of a database that has none; the first value is never changed."""
        named = upsert(connection, identity).values(id=1, store=store, place=place)
        connection.execute(named.on_conflict_do_nothing())

    @reading
    def files(self, connection: Connection) -> Keys:
        """Return storage keys; the right store has at least one of them. Without a job: []."""
        from batchgen.inputs.stored_input import (
            input_key,  # imports numpy, which `batchgen ls` does not need
        )

        newest = select(jobs.c.public_id, jobs.c.input_sha256, jobs.c.dataset_path)
        found = connection.execute(newest.order_by(jobs.c.id.desc()).limit(JOBS_LOOKED_AT)).all()
        keys = [input_key(row.input_sha256) for row in found]
        keys += [row.dataset_path for row in found if row.dataset_path]
        return keys + [f"parts/{row.public_id}" for row in found]

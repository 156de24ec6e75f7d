"""The open database and files of a home, which the services of all tenants share."""

from __future__ import annotations

from threading import RLock

from batchgen.database.identity import open_storage
from batchgen.jobs.store import Store
from batchgen.service.access import Access
from batchgen.service.database import open_database
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage


class Opened:
    """Opens the store and the storage of one home when they are first used, from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = RLock()
        self._store: Store | None = None
        self._storage: LocalStorage | None = None
        self._access: Access | None = None

    @property
    def store(self) -> Store:
        """The store; see `open_database` for what it raises."""
        with self._lock:
            if self._store is None:
                self._store = Store(open_database(self._settings))
            return self._store

    @property
    def storage(self) -> LocalStorage:
        """The storage, which was checked once to be the one of the database."""
        with self._lock:
            if self._storage is None:
                storage = open_storage(self.store.database, self._settings.home)
                storage.check()
                self._storage = storage
            return self._storage

    @property
    def access(self) -> Access:
        """The tenants and keys of the store."""
        with self._lock:
            if self._access is None:
                self._access = Access(self.store.database, self.storage)
            return self._access

    def close(self) -> None:
        """Close idle database connections."""
        with self._lock:
            if self._store is not None:
                self._store.close()

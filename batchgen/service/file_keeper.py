"""Keeps the files of the Batch API in order: counts outputs, deletes what is over.

A coordinator calls it now and then for all tenants, the service for the file of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from batchgen.batches.file_records import FileRecord
from batchgen.batches.files import FileManager
from batchgen.errors import Corrupt, JobNotFound, NotAllowed
from batchgen.jobs.removals import Removal, Remover
from batchgen.jobs.store import Store
from batchgen.service.results import Results
from batchgen.storage.storage import Storage


class FileKeeper:
    """Counts and deletes files. Several may work at once."""

    def __init__(self, store: Store, storage: Storage) -> None:
        self.rows = FileManager(store.database)
        self._store = store
        self._storage = storage
        self._remover = Remover(store.database, storage)
        #: Called with a result file whose lines cannot be read, and the error; others go on.
        self.on_trouble: Callable[[FileRecord, Corrupt], None] = _raise
        self._unreadable: set[str] = set()

    def count_outputs(self) -> int:
        """Count the lines of result files whose jobs have ended; return how many files."""
        found = [file for file in self.rows.uncounted() if file.id not in self._unreadable]
        for file in found:
            try:
                self.count(file)
            except Corrupt as error:
                self._storage.check()  # in another store every file is missing
                self._unreadable.add(file.id)
                self.on_trouble(file, error)
        return len(found)

    def count(self, file: FileRecord) -> FileRecord | None:
        """Return a result file with its bytes; None if it has no lines, and so is no file.

        The job has ended. If it failed, there are no lines.
        """
        if file.bytes is not None:
            return file
        try:
            lines = self.results(file).openai_lines(
                file.batch_id or "", errors=bool(file.is_errors), endpoint=file.endpoint
            )
            return self.rows.set_bytes(file.id, sum(map(len, lines)))
        except (JobNotFound, NotAllowed):
            return self.rows.set_bytes(file.id, 0)

    def delete_expired(self) -> int:
        """Delete files whose time is over, and what only they used; return how many."""
        found = self.rows.delete_expired()
        for file in found:
            self.clear(file)
        return len(found)

    def clear(self, file: FileRecord) -> None:
        """Delete from the disk what only this file used, once its row is deleted."""
        if file.input_sha256 is not None:
            self._remover.finish(Removal(public_id=file.id, input_sha256=file.input_sha256))
        if file.batch_id is not None and self.rows.is_given_up(file.batch_id):
            self._remover.remove(file.batch_id)

    def discard(self, sha256: str) -> None:
        """Delete an input from the disk that was stored and then refused, if nothing uses it."""
        self._remover.discard(sha256)

    def remove_given_up(self) -> int:
        """Remove the jobs of batches that have no result file left; return how many."""
        found = self.rows.given_up()
        for batch_id in found:
            self._remover.remove(batch_id)
        return len(found)

    def results(self, file: FileRecord) -> Results:
        """Return the results of the jobs of the file's tenant."""
        find = partial(self._store.jobs.get, tenant=file.tenant_id)
        return Results(store=self._store, storage=self._storage, find=find)


def _raise(file: FileRecord, error: Corrupt) -> None:
    raise error

"""The files of one tenant in the Batch API: upload, find, read, delete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from batchgen.batches.file_records import FileRecord, NewFile, Purpose
from batchgen.errors import (
    FileNotFound,
    InvalidParameter,
    NotAllowed,
    QuotaExceeded,
    Unavailable,
)
from batchgen.failpoints import reach
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.inputs.upload import InputUpload, Uploaded
from batchgen.jobs.store import Store
from batchgen.service.file_keeper import FileKeeper
from batchgen.storage.storage import Storage

NAME_LIMIT = 512  # characters of a file's name
#: Seconds after which a file may be told to expire, as at OpenAI: an hour to thirty days.
EXPIRY = (3600, 2_592_000)
LIST_LIMIT = 10_000
PIECE = 1 << 18  # bytes read at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The bytes of a file: those of an upload lie in `path`, those of results come as `lines`."""

    file: FileRecord
    path: Path | None = None
    lines: Iterator[bytes] | None = None

    @property
    def is_complete(self) -> bool:
        """False while the job goes on: then more lines will come."""
        return self.lines is None or bool(self.file.is_final)


class Files:
    """Operates on the files of one tenant. An id of another tenant's file is not found.

    uploaded = files.store(stream)
    file = files.register(uploaded, NewFile(filename="requests.jsonl"))
    """

    def __init__(
        self, store: Store, storage: Storage, *, tenant: str, key_id: str | None = None
    ) -> None:
        #: It has the transactions, and does for all tenants what is due.
        self.keeper = FileKeeper(store, storage)
        self._rows = self.keeper.rows
        self._store = store
        self._storage = storage
        self._tenant = tenant
        self._key_id = key_id

    def store(self, source: BinaryIO) -> Uploaded:
        """Store an upload while it is read; no file is registered yet.

        Nothing remains if reading fails. Raises EmptyInput, StoreMismatch, SchemaMismatch,
        QuotaExceeded as soon as there is too much, and OSError if the disk is full.
        """
        self._store.database.check_schema()
        self._storage.establish()
        room = 0
        with InputUpload(self._storage) as upload:
            while piece := source.read(PIECE):
                if upload.bytes + len(piece) > room:
                    room = self._rows.room(upload.bytes + len(piece), tenant=self._tenant)
                upload.write(piece)
            return upload.finish()

    def register(self, uploaded: Uploaded, new: NewFile) -> FileRecord:
        """Register a finished upload; it is durable on return. Raises InvalidParameter."""
        check_file(new)
        reach("upload.stored")
        try:
            file = self._rows.add(new, uploaded, tenant=self._tenant, key_id=self._key_id)
        except QuotaExceeded:
            self.keeper.discard(uploaded.sha256)
            raise
        reach("upload.registered")
        keys = (input_key(uploaded.sha256), index_key(uploaded.sha256))
        if any(self._storage.size(key) is None for key in keys):
            # Another file with the same bytes was deleted just between the two steps.
            self._rows.delete(file.id, tenant=self._tenant)
            raise Unavailable("The file was deleted while it was stored. Upload it again.")
        return file

    def get(self, file_id: str) -> FileRecord:
        """Return a file; raise FileNotFound. Its bytes are None only while its job goes on."""
        file = self._rows.get(file_id, tenant=self._tenant)
        if file.bytes is None and file.is_final:
            counted = self.keeper.count(file)
            if counted is None:
                raise FileNotFound
            return counted
        return file

    def list(
        self,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = LIST_LIMIT,
        ascending: bool = False,
    ) -> list[FileRecord]:
        """Return files by age; `after` is the id of the last one seen."""
        if purpose is not None and purpose not in list(Purpose):
            return []
        return self._rows.list(
            tenant=self._tenant, purpose=purpose, after=after, limit=limit, ascending=ascending
        )

    def delete(self, file_id: str) -> None:
        """Delete a file, and its bytes if nothing else uses them.

        The job and the dataset of a batch are removed with the last of its result files. Raises
        FileNotFound, and NotAllowed while the results are still being computed.
        """
        file = self.get(file_id)
        if file.bytes is None:
            raise NotAllowed(
                f"batch_{file.batch_id} still writes this file. Cancel the batch first."
            )
        self._rows.delete(file_id, tenant=self._tenant)
        self.keeper.clear(file)

    def content(self, file_id: str) -> Content:
        """Return the content of a file; raise FileNotFound.

        The lines of results are produced while they are read, also while the job goes on.
        """
        file = self._rows.get(file_id, tenant=self._tenant)
        if file.input_sha256 is not None:
            return Content(file=file, path=self._storage.path(input_key(file.input_sha256)))
        lines = self.keeper.results(file).openai_lines(
            file.batch_id or "",
            errors=bool(file.is_errors),
            endpoint=file.endpoint,
            partial=not file.is_final,
        )
        return Content(file=file, lines=lines)


def check_file(new: NewFile) -> None:
    """Raise InvalidParameter if an upload cannot be registered so."""
    check_expiry(new.expires_after)
    if not 0 < len(new.filename) <= NAME_LIMIT or not new.filename.isprintable():
        raise InvalidParameter(
            f"The name of a file has 1 to {NAME_LIMIT} printable characters.", param="file"
        )


def check_expiry(seconds: float | None, *, param: str = "expires_after") -> None:
    """Raise InvalidParameter if a file cannot be told to expire after so many seconds."""
    least, most = EXPIRY
    if seconds is not None and not least <= seconds <= most:
        raise InvalidParameter(
            f"A file may expire {least:,} to {most:,} seconds after its creation, not "
            f"{seconds:,.0f}.",
            param=f"{param}.seconds",
        )

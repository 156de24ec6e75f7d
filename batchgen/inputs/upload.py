"""Store an input that arrives in pieces, as an upload does: counted and indexed, not parsed.

write(piece) ──► SHA-256 ─┬─► inputs/<sha256>
                          └─► inputs/<sha256>.index      the same index that `ingest` writes
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from batchgen.errors import EmptyInput
from batchgen.inputs.record_file import OFFSET
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.storage.storage import Storage

_BOM: Final = b"\xef\xbb\xbf"
_LINE_FEED: Final = 0x0A


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """An input that is stored. Its lines have not been looked at."""

    sha256: str
    bytes: int
    # lines, without blank ones at the end
    n_rows: int


class InputUpload:
    """Takes one input in pieces of any size; nothing of it remains unless `finish` is called.

    with InputUpload(storage) as upload:
        upload.write(b'{"custom_id": …}\\n{"cus')
        upload.write(b'tom_id": …}\\n')
        uploaded = upload.finish()
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._digest = hashlib.sha256()
        self._is_open = False
        # The first bytes, until it is known whether they are a byte order mark.
        self._head = b""
        self._begun = False
        self.bytes = 0
        self._lines = 0
        # Line feeds before the last byte that is not blank: every later line is blank.
        self._rows_before = 0
        self._is_blank = True
        self._ends_line = True

    def __enter__(self) -> InputUpload:
        with ExitStack() as opened:
            self._data = opened.enter_context(self._storage.write(input_key("incoming")))
            self._index = opened.enter_context(self._storage.write(index_key("incoming")))
            self._files = opened.pop_all()
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            abandoned = _Abandoned()
            self._files.__exit__(_Abandoned, abandoned, None)

    def write(self, piece: bytes) -> None:
        """Append the next bytes."""
        if not self._begun:
            self._head += piece
            if len(self._head) < len(_BOM):
                return
            piece, self._head = self._head, b""
            self._begin(piece)
        self._append(piece)

    def finish(self) -> Uploaded:
        """Store the input durably under its SHA-256; raise EmptyInput if no line has content."""
        if not self._begun:
            self._begin(self._head)
            self._append(self._head)
        if self._is_blank:
            raise EmptyInput("The file has no line with content. Write one JSON object a line.")
        n_rows = self._rows_before + 1
        if not self._ends_line:
            self._write_offsets(np.array([self.bytes]))
        self._index.file.truncate((n_rows + 1) * OFFSET.itemsize)
        sha256 = self._digest.hexdigest()
        self._data.target = self._storage.path(input_key(sha256))
        self._index.target = self._storage.path(index_key(sha256))
        self._is_open = False
        self._files.close()
        return Uploaded(sha256=sha256, bytes=self.bytes, n_rows=n_rows)

    def _begin(self, head: bytes) -> None:
        self._begun = True
        start = len(_BOM) if head.startswith(_BOM) else 0
        self._write_offsets(np.array([start]))

    def _append(self, piece: bytes) -> None:
        if not piece:
            return
        self._digest.update(piece)
        self._data.file.write(piece)
        feeds = np.flatnonzero(np.frombuffer(piece, np.uint8) == _LINE_FEED)
        self._write_offsets(feeds + (self.bytes + 1))
        if content := piece.rstrip():
            self._is_blank = self._is_blank and self.bytes == 0 and content == _BOM
            self._rows_before = self._lines + int(np.searchsorted(feeds, len(content)))
        self._lines += len(feeds)
        self._ends_line = piece.endswith(b"\n")
        self.bytes += len(piece)

    def _write_offsets(self, offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self._index.file.write(offsets.astype(OFFSET).tobytes())


class _Abandoned(Exception):
    """An upload was not finished."""

"""Write one series of Parquet files; a new one begins before a file grows too large.

    tables ──► pieces ──► row group (buffered) ──► file ──► next file …
                                                    └─ .train-00000.tmp until the count is known

The number of files is known only at the end, so files get their `-of-000NN` names then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchgen.dataset.arrow_schema import PARQUET_OPTIONS
from batchgen.dataset.manifest import FileEntry
from batchgen.errors import Corrupt
from batchgen.storage.durable_files import fsync, make_folder, make_read_only, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest row groups and files. Bytes of a row group are those of Arrow in memory."""

    row_group_rows: int = 122_880  # DuckDB's own row group
    row_group_bytes: int = 64_000_000  # what readers and this writer buffer; HF: <= 100 MB
    file_rows: int = 1_000_000
    file_bytes: int = 480_000_000  # without the footer; HF asks for <= 500 MB


class RollingWriter:
    """Writes tables as `<folder>/<stem>-00000-of-000NN.parquet`, …; `finish` names the files."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema, limits: Limits) -> None:
        self._folder = folder
        self._stem = stem
        self._schema = schema
        self._limits = limits
        self._finished: list[FileEntry] = []  # still with their temporary names
        self._buffer: list[pa.Table] = []
        self._buffered_rows = 0
        self._buffered_bytes = 0
        self._file: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._file_rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows; at most one row group is held in memory."""
        for piece in _pieces(table, self._limits.row_group_bytes):
            self._add_piece(piece)

    def finish(self, *, at_least_one: bool = False) -> list[FileEntry]:
        """Write the buffered rows, give the files their names, and return them in order.

        `path` is `<folder name>/<file name>`. With `at_least_one` an empty file is written if there
        were no rows. Files and folder are durable on return, and the files are read-only.
        """
        self._flush()
        if at_least_one and not self._finished and self._writer is None:
            self._open()
        self._close()
        entries = [self._rename(number, entry) for number, entry in enumerate(self._finished)]
        if entries:
            fsync(self._folder)
        return entries

    def abandon(self) -> None:
        """Close the open file after a failure; the caller removes the folder."""
        if self._writer is None or self._file is None:
            return
        with suppress(OSError):  # close writes a footer, and the disk may be full
            self._writer.close()
        self._file.close()

    def _add_piece(self, piece: pa.Table) -> None:
        while len(piece):
            head = piece.slice(0, self._limits.row_group_rows - self._buffered_rows)
            if self._buffered_bytes + head.nbytes > self._limits.row_group_bytes:
                self._flush()
                head = piece.slice(0, self._limits.row_group_rows)
            self._buffer.append(head)
            self._buffered_rows += len(head)
            self._buffered_bytes += head.nbytes
            if self._buffered_rows == self._limits.row_group_rows:
                self._flush()
            piece = piece.slice(len(head))

    def _flush(self) -> None:
        if not self._buffer:
            return
        # A copy in one piece: equal rows give equal bytes, and the source tables can be freed.
        group = pa.concat_tables(self._buffer).combine_chunks()
        self._buffer, self._buffered_rows, self._buffered_bytes = [], 0, 0
        if self._is_full(group):
            self._close()
        writer = self._writer or self._open()
        writer.write_table(group, row_group_size=len(group))
        self._file_rows += len(group)

    def _is_full(self, group: pa.Table) -> bool:
        if self._file is None:
            return False
        rows = self._file_rows + len(group)
        # An upper bound: the compressed group is smaller.
        size = self._file.tell() + group.nbytes
        return rows > self._limits.file_rows or size > self._limits.file_bytes

    def _open(self) -> pq.ParquetWriter:
        make_folder(self._folder)
        self._file = pa.OSFile(str(self._pending(len(self._finished))), "wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, **PARQUET_OPTIONS)
        self._file_rows = 0
        return self._writer

    def _close(self) -> None:
        if self._writer is None or self._file is None:
            return
        self._writer.close()
        self._file.close()
        self._writer = self._file = None
        path = self._pending(len(self._finished))
        if pq.read_metadata(path).num_rows != self._file_rows:
            raise Corrupt(f"{path} does not hold the rows that were written.")
        make_read_only(path)
        fsync(path)
        self._finished.append(
            FileEntry(
                path=path.name,
                rows=self._file_rows,
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
        )

    def _rename(self, number: int, entry: FileEntry) -> FileEntry:
        name = f"{self._stem}-{number:05d}-of-{len(self._finished):05d}.parquet"
        self._pending(number).rename(self._folder / name)
        return replace(entry, path=f"{self._folder.name}/{name}")

    def _pending(self, number: int) -> Path:
        return self._folder / f".{self._stem}-{number:05d}.tmp"


def _pieces(table: pa.Table, limit: int) -> Iterator[pa.Table]:
    """Yield the table in order, halved until a piece has at most `limit` bytes or is one row."""
    if len(table) <= 1 or table.nbytes <= limit:
        yield table
        return
    middle = len(table) // 2
    yield from _pieces(table.slice(0, middle), limit)
    yield from _pieces(table.slice(middle), limit)

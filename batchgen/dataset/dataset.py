"""Write the dataset: every row of a job in input order, as a stream, the manifest last.

segments ──► checked: SHA-256, rows strictly increasing ──┬─ ok ──► data/train-*.parquet
(parts, or rows in memory)                                └─ err ─► errors/errors-*.parquet
                                      then README.md, and .batchgen/manifest.json last
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import merge_numerics
from batchgen.core.rows import ResultRow
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.card import render_card
from batchgen.dataset.manifest import MANIFEST, DatasetMeta, FileEntry, Manifest, Totals
from batchgen.dataset.parts import count_finish_reasons, count_tokens, numerics_of, read_part
from batchgen.dataset.result_table import to_table
from batchgen.dataset.rolling import Limits, RollingWriter
from batchgen.errors import Corrupt, NotAllowed
from batchgen.storage.durable_files import make_folder
from batchgen.storage.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DatasetInfo", "DatasetMeta", "Limits", "PartRef", "Segment", "write_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """A committed part as registered in SQL."""

    path: str  # storage key
    n_rows: int
    sha256: str
    kv: KVTotals = UNMEASURED


#: Rows that are consecutive in the input: a part, or rows in memory that no part holds.
Segment: TypeAlias = PartRef | Sequence[ResultRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """A finished dataset as recorded in SQL."""

    path: str  # key prefix of the folder
    manifest_sha256: str
    n_rows: int
    n_ok: int
    n_err: int
    files: tuple[FileEntry, ...]


def write_dataset(
    storage: Storage,
    *,
    root: str,
    segments: Iterable[Segment],
    meta: DatasetMeta,
    limits: Limits | None = None,
) -> DatasetInfo:
    """Write the dataset of a job below the key prefix `root` and return the record for SQL.

    Segments must be in input order. They are read one row group at a time, so memory holds a few
    row groups. The same segments and meta give the same bytes. All files are durable on return. If
    this fails, also by an exception of the caller's iterator, no files are left.

    Raises Corrupt, with the name of the part, if a part is missing or changed, if rows are not
    strictly increasing, or if they are not exactly rows 0 … meta.n_rows - 1. Raises NotAllowed if
    there is a finished dataset at `root` already.
    """
    storage.check()
    folder = storage.path(root)
    if storage.size(f"{root}/{MANIFEST}") is not None:
        raise NotAllowed(f"{root} is a finished dataset, which is never written again.")
    with _fresh_folder(folder):
        stream = _Stream(folder, meta, limits or Limits())
        try:
            for segment in segments:
                for table, origin in _load(storage, segment):
                    stream.add(table, origin)
                stream.count(segment)
            files = stream.finish()
        except BaseException:
            stream.abandon()
            raise
        totals = stream.totals
        files.append(_write_card(storage, root, meta, totals))
        manifest = Manifest(meta=meta, totals=totals, files=files)
        sha256 = _write_bytes(storage, f"{root}/{MANIFEST}", manifest.encode())
    return DatasetInfo(
        path=root,
        manifest_sha256=sha256,
        n_rows=totals.rows,
        n_ok=totals.ok,
        n_err=totals.errors,
        files=tuple(files),
    )


@dataclass(slots=True)
class _Stream:
    """Writes answered and failed rows to their series of files, and keeps the sums."""

    folder: Path
    meta: DatasetMeta
    limits: Limits
    totals: Totals = field(default_factory=Totals)
    last_row: int = -1
    answered: RollingWriter = field(init=False)
    failed: RollingWriter = field(init=False)

    def __post_init__(self) -> None:
        schema = SCHEMA.with_metadata(self.meta.schema_metadata())
        self.answered = RollingWriter(self.folder / "data", "train", schema, self.limits)
        self.failed = RollingWriter(self.folder / "errors", "errors", schema, self.limits)

    def add(self, table: pa.Table, origin: str) -> None:
        """Append rows of one segment; error messages call it `origin`."""
        if not len(table):
            return
        self.last_row = _check_order(table, self.last_row, origin)
        failed = len(table) - table["error"].null_count
        if failed == 0:
            self.answered.add(table)
        else:
            is_ok = table["error"].is_null()
            self.answered.add(table.filter(is_ok))
            self.failed.add(table.filter(table["error"].is_valid()))
        self.totals = _add_up(self.totals, table, failed)

    def count(self, segment: Segment) -> None:
        """Add the KV totals of a segment that is a part."""
        if isinstance(segment, PartRef):
            self.totals = replace(self.totals, kv=self.totals.kv + segment.kv)

    def finish(self) -> list[FileEntry]:
        """Finish both series; raise Corrupt if rows of the input are missing."""
        expected = self.meta.n_rows
        if self.totals.rows != expected or self.last_row != expected - 1:
            raise Corrupt(
                f"The segments hold {self.totals.rows} rows up to row {self.last_row}; "
                f"the input has {expected}."
            )
        # The pattern `data/*` must match a file even if every row failed.
        return self.answered.finish(at_least_one=True) + self.failed.finish()

    def abandon(self) -> None:
        """Release open files after a failure."""
        self.answered.abandon()
        self.failed.abandon()


def _load(storage: Storage, segment: Segment) -> Iterator[tuple[pa.Table, str]]:
    """Yield the rows of a segment, one row group at a time, with their name for errors."""
    if not isinstance(segment, PartRef):
        yield to_table(segment), "rows without a part"
        return
    n_rows = 0
    for table in read_part(storage, segment.path, sha256=segment.sha256):
        n_rows += len(table)
        yield table, f"part {segment.path}"
    if n_rows != segment.n_rows:
        raise Corrupt(f"part {segment.path} holds {n_rows} rows, not {segment.n_rows}.")


def _check_order(table: pa.Table, last_row: int, origin: str) -> int:
    """Return the table's last row; raise Corrupt if rows are not strictly increasing."""
    if table["row"].null_count:
        raise Corrupt(f"{origin} holds a row without a number.")
    rows = table["row"].to_numpy()
    steps = np.diff(rows, prepend=last_row)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        before = last_row if at == 0 else int(rows[at - 1])
        raise Corrupt(f"{origin} is out of order: row {rows[at]} follows row {before}.")
    return int(rows[-1])


def _add_up(totals: Totals, table: pa.Table, failed: int) -> Totals:
    return replace(
        totals,
        rows=totals.rows + len(table),
        ok=totals.ok + len(table) - failed,
        errors=totals.errors + failed,
        finish_reasons=totals.finish_reasons + count_finish_reasons(table),
        prompt_tokens=totals.prompt_tokens + count_tokens(table, "prompt_tokens"),
        completion_tokens=totals.completion_tokens + count_tokens(table, "completion_tokens"),
        cached_tokens=totals.cached_tokens + count_tokens(table, "cached_tokens"),
        numerics=merge_numerics(totals.numerics, numerics_of(table)),
    )


@contextmanager
def _fresh_folder(folder: Path) -> Iterator[None]:
    # Without a manifest the folder is not a dataset: a crash left it, so it is removed.
    if folder.exists():
        shutil.rmtree(folder)
    make_folder(folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_card(storage: Storage, root: str, meta: DatasetMeta, totals: Totals) -> FileEntry:
    text = render_card(meta, totals).encode()
    sha256 = _write_bytes(storage, f"{root}/README.md", text)
    return FileEntry(path="README.md", rows=None, bytes=len(text), sha256=sha256)


def _write_bytes(storage: Storage, key: str, data: bytes) -> str:
    make_folder(storage.path(key).parent)
    with storage.write(key) as pending:
        pending.file.write(data)
    return hashlib.sha256(data).hexdigest()

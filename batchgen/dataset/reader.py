"""Read results: a finished dataset by its manifest, a running job by its parts."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset as arrow_dataset

from batchgen.core.rows import ResultRow
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.manifest import FileEntry, local_path, read_manifest
from batchgen.dataset.result_table import from_table
from batchgen.errors import Corrupt
from batchgen.storage.storage import Storage

BATCH_ROWS: Final = 1024  # rows decoded at a time

Config = Literal["default", "errors"]


def open_dataset(folder: Path, config: Config = "default") -> arrow_dataset.Dataset:
    """Open the answered rows of a finished dataset, or its failed rows with config `errors`.

    Rows are in input order. The columns are those of `SCHEMA`, even if there are no rows.
    Raises Corrupt if the folder is not a finished dataset or a file has another size than
    the manifest says (`verify_dataset` also checks the bytes).
    """
    return _open_files([str(path) for path in _paths(folder, config)])


def open_partial(storage: Storage, part_keys: Sequence[str]) -> arrow_dataset.Dataset:
    """Open the committed parts of a running job, in the order given.

    They hold answered and failed rows. Raises Corrupt, with the name of the part, if one is
    missing.
    """
    for key in part_keys:
        if storage.size(key) is None:
            raise Corrupt(f"part {key} is missing.")
    return _open_files([str(storage.path(key)) for key in part_keys])


def iter_rows(folder: Path) -> Iterator[ResultRow]:
    """Yield every row of a finished dataset, answered or failed, in input order.

    Memory does not grow with the rows. Errors are those of `open_dataset`, raised at the first row.
    """
    answered = _stream(_paths(folder, "default"))
    failed = _stream(_paths(folder, "errors"))
    return heapq.merge(answered, failed, key=lambda row: row.row)


def _paths(folder: Path, config: Config) -> list[Path]:
    manifest = read_manifest(folder)
    entries = manifest.data_files() if config == "default" else manifest.error_files()
    return [_checked_path(folder, entry) for entry in entries]


def _checked_path(folder: Path, entry: FileEntry) -> Path:
    path = local_path(folder, entry)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Corrupt(f"{path} is missing. See `batchgen verify`.") from error
    if size != entry.bytes:
        raise Corrupt(f"{path} has {size} bytes, not {entry.bytes}. See `batchgen verify`.")
    return path


def _open_files(paths: list[str]) -> arrow_dataset.Dataset:
    if not paths:
        return arrow_dataset.FileSystemDataset([], SCHEMA, arrow_dataset.ParquetFileFormat())
    return arrow_dataset.dataset(paths, schema=SCHEMA, format="parquet")


def _stream(paths: list[Path]) -> Iterator[ResultRow]:
    for path in paths:
        # A scanner would read several batches of several files ahead.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            # A batch over several row groups could have any size.
            for number in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[number]):
                    yield from from_table(pa.Table.from_batches([batch]))

"""Read results: a finished dataset by its manifest, a running job by its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import dataset as arrow_dataset

from batchgen.core.rows import ResultRow
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.result_table import from_table
from batchgen.dataset.streams.record_batches import (
    Batches,
    Config,
    dataset_batches,
    dataset_files,
)
from batchgen.errors import Corrupt
from batchgen.storage.storage import Storage

BATCH_ROWS: Final = 1024  # rows decoded at a time


def open_dataset(folder: Path, config: Config = "default") -> arrow_dataset.Dataset:
    """Open the answered rows of a finished dataset, or its failed rows with config `errors`.

    Rows are in input order. The columns are those of `SCHEMA`, even if there are no rows.
    Raises Corrupt if the folder is not a finished dataset or a file has another size than
    the manifest says (`verify_dataset` also checks the bytes).
    """
    return _open_files([str(path) for path in dataset_files(folder, config)])


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

    Memory does not grow with the rows. Raises Corrupt as `open_dataset` does, before the first row.
    """
    return rows_of(dataset_batches(folder))


def rows_of(batches: Batches) -> Iterator[ResultRow]:
    """Yield the rows of record batches that have every column of `SCHEMA`."""
    for batch in batches:
        for start in range(0, len(batch), BATCH_ROWS):
            yield from from_table(pa.Table.from_batches([batch.slice(start, BATCH_ROWS)]))


def _open_files(paths: list[str]) -> arrow_dataset.Dataset:
    if not paths:
        return arrow_dataset.FileSystemDataset([], SCHEMA, arrow_dataset.ParquetFileFormat())
    return arrow_dataset.dataset(paths, schema=SCHEMA, format="parquet")

"""The rows of Parquet files as record batches in input order, a few megabytes at a time.

data/    ──► 0 1 3 4 5 │ 7 8 9 …  ─┐
                                   ├─ merged by `row` ──► 0 1 2 3 4 5 │ 6 7 8 9 …
errors/  ──► 2 6 11 …             ─┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.manifest import FileEntry, local_path, read_manifest
from batchgen.errors import Corrupt

Config = Literal["default", "errors"]
Batches = Iterator[pa.RecordBatch]
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]

MOST_ROWS: Final = 4096  # in one batch
MOST_BYTES: Final = 2_000_000  # of a batch, about; of Arrow in memory
ALL: Final = tuple(SCHEMA.names)


def dataset_files(folder: Path, config: Config) -> list[Path]:
    """Return the Parquet files of answered rows, or with config `errors` of failed rows, in order.

    Raises Corrupt if the folder is no finished dataset, or if a file has another size than the
    manifest says.
    """
    manifest = read_manifest(folder)
    entries = manifest.data_files() if config == "default" else manifest.error_files()
    return [_checked_path(folder, entry) for entry in entries]


def dataset_batches(
    folder: Path,
    *,
    configs: Sequence[Config] = ("default", "errors"),
    columns: Sequence[str] = ALL,
    after: int = -1,
    only: Numbers | None = None,
) -> Batches:
    """Return the rows of a finished dataset with a number above `after`, in input order.

    If the sorted numbers `only` are given, row groups that have none of them are left out.
    `columns` must have `row`. Errors are those of `dataset_files`.
    """
    series = [dataset_files(folder, config) for config in configs]
    return merged(*[_read_files(paths, columns, after, only) for paths in series])


def merged(*series: Batches) -> Batches:
    """Return the rows of several series, each sorted by `row`, as one sorted series."""
    together: Batches = iter(())
    for one in series:
        together = _merge(together, one)
    return together


def sliced(batches: Batches, after: int) -> Batches:
    """Return the rows with a number above `after`, in batches of at most MOST_BYTES, about."""
    for batch in batches:
        begin = int(np.searchsorted(_numbers(batch), after, side="right"))
        rest = batch.slice(begin)
        step = _rows_together(len(batch), batch.nbytes)
        for start in range(0, len(rest), step):
            yield rest.slice(start, step)


def _read_files(
    paths: list[Path], columns: Sequence[str], after: int, only: Numbers | None
) -> Batches:
    for path in paths:
        # A scanner would read several batches of several files ahead.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for number in range(file.num_row_groups):
                first, last = _bounds(file, number)
                if last > after and _are_between(only, first, last):
                    yield from sliced(_read_group(file, number, columns), after)


def _read_group(file: pq.ParquetFile, number: int, columns: Sequence[str]) -> Batches:
    group = file.metadata.row_group(number)
    size = _rows_together(group.num_rows, group.total_byte_size)
    batches: Batches = file.iter_batches(
        size, row_groups=[number], columns=list(columns), use_threads=False
    )
    return batches


def _bounds(file: pq.ParquetFile, number: int) -> tuple[int, int]:
    """Return the first and the last row of a group, by its statistics of the column `row`."""
    statistics = file.metadata.row_group(number).column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return 0, np.iinfo(np.int64).max
    return int(statistics.min), int(statistics.max)


def _are_between(numbers: Numbers | None, first: int, last: int) -> bool:
    if numbers is None:
        return True
    return bool(np.searchsorted(numbers, first) < np.searchsorted(numbers, last, side="right"))


def _rows_together(rows: int, size: int) -> int:
    return max(1, min(MOST_ROWS, rows * MOST_BYTES // max(size, 1)))


def _merge(one: Batches, other: Batches) -> Batches:
    left, right = next(one, None), next(other, None)
    while left is not None and right is not None:
        bound = min(_numbers(left)[-1], _numbers(right)[-1])
        (head, left), (more, right) = _cut(left, bound), _cut(right, bound)
        yield _sorted([head, more])
        left = left if len(left) else next(one, None)
        right = right if len(right) else next(other, None)
    if left is not None:
        yield left
    if right is not None:
        yield right
    yield from one
    yield from other


def _cut(batch: pa.RecordBatch, bound: int) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Split a batch behind the row `bound`."""
    size = int(np.searchsorted(_numbers(batch), bound, side="right"))
    return batch.slice(0, size), batch.slice(size)


def _sorted(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    filled = [batch for batch in batches if len(batch)]
    if len(filled) == 1:
        return filled[0]
    together = pa.concat_batches(filled)
    return together.take(pa.array(np.argsort(_numbers(together), kind="stable")))


def _numbers(batch: pa.RecordBatch) -> Numbers:
    rows: Numbers = batch["row"].to_numpy()
    return rows


def _checked_path(folder: Path, entry: FileEntry) -> Path:
    path = local_path(folder, entry)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Corrupt(f"{path} is missing. See `batchgen verify`.") from error
    if size != entry.bytes:
        raise Corrupt(f"{path} has {size} bytes, not {entry.bytes}. See `batchgen verify`.")
    return path

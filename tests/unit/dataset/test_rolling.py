from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.result_table import to_table
from batchgen.dataset.rolling import Limits, RollingWriter
from tests.support.disk_events import open_files, small_disk
from tests.support.result_rows import ok_row

WIDE = 1 << 40  # bytes: no limit


def table(start: int, stop: int, size: int = 10) -> pa.Table:
    return to_table([ok_row(row, "x" * size) for row in range(start, stop)])


def written(folder: Path) -> list[list[int]]:
    """Return the rows of each row group of each file, files in the order of their names."""
    groups = []
    for path in sorted(folder.iterdir()):
        with pq.ParquetFile(path) as file:
            groups.append(
                [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
            )
    return groups


def rows_of(folder: Path) -> list[int]:
    return [
        row
        for path in sorted(folder.iterdir())
        for row in pq.ParquetFile(path).read(columns=["row"])["row"].to_pylist()
    ]


def random_text(row: int, size: int) -> str:
    return hashlib.shake_256(str(row).encode()).hexdigest(size // 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_names_tell_the_number_of_files_although_it_comes_last(folder: Path) -> None:
    limits = Limits(row_group_rows=4, row_group_bytes=WIDE, file_rows=8, file_bytes=WIDE)
    writer = RollingWriter(folder, "train", SCHEMA, limits)
    for start in range(0, 20, 2):
        writer.add(table(start, start + 2))
    entries = writer.finish()
    assert [entry.path for entry in entries] == [
        "data/train-00000-of-00003.parquet",
        "data/train-00001-of-00003.parquet",
        "data/train-00002-of-00003.parquet",
    ]
    assert [entry.rows for entry in entries] == [8, 8, 4]
    assert written(folder) == [[4, 4], [4, 4], [4]]
    assert rows_of(folder) == list(range(20))


def test_entries_describe_the_files_on_disk(folder: Path) -> None:
    writer = RollingWriter(folder, "train", SCHEMA, Limits(file_rows=3, row_group_rows=3))
    writer.add(table(0, 7))
    for entry in writer.finish():
        data = (folder.parent / entry.path).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_no_row_group_is_larger_than_the_limits(folder: Path) -> None:
    limits = Limits(row_group_rows=100, row_group_bytes=40_000, file_rows=WIDE, file_bytes=WIDE)
    writer = RollingWriter(folder, "train", SCHEMA, limits)
    writer.add(table(0, 250))  # 100 rows reach the row limit first
    writer.add(table(250, 260, size=4000))  # 10 rows of 8 KB: the byte limit
    writer.finish()
    (groups,) = written(folder)
    assert max(groups) <= 100
    with pq.ParquetFile(folder / "train-00000-of-00001.parquet") as file:
        sizes = [file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups)]
    assert max(sizes) <= 40_000
    assert rows_of(folder) == list(range(260))


def test_no_file_is_larger_than_the_limit_even_where_nothing_compresses(folder: Path) -> None:
    limits = Limits(row_group_rows=10, row_group_bytes=WIDE, file_rows=WIDE, file_bytes=100_000)
    writer = RollingWriter(folder, "train", SCHEMA, limits)
    for row in range(100):
        writer.add(to_table([ok_row(row, random_text(row, 4000))]))
    entries = writer.finish()
    assert len(entries) > 2
    footer = 20_000  # bytes: key-values, statistics and page index come after the last row group
    assert max(entry.bytes for entry in entries) <= 100_000 + footer
    assert rows_of(folder) == list(range(100))


def test_a_row_larger_than_every_limit_is_written_alone(folder: Path) -> None:
    limits = Limits(row_group_rows=10, row_group_bytes=1000, file_rows=10, file_bytes=1000)
    writer = RollingWriter(folder, "train", SCHEMA, limits)
    writer.add(table(0, 3, size=5000))
    writer.finish()
    assert written(folder) == [[1], [1], [1]]


def test_equal_rows_give_equal_bytes_however_they_are_cut(tmp_path: Path) -> None:
    sums = []
    rows = to_table([ok_row(row, random_text(row, 1200)) for row in range(3000)])
    for step in (7, 500, 3000):
        writer = RollingWriter(tmp_path / str(step), "train", SCHEMA, Limits(row_group_rows=2500))
        for start in range(0, 3000, step):
            writer.add(rows.slice(start, step))
        sums.append([entry.sha256 for entry in writer.finish()])
    assert sums[0] == sums[1] == sums[2]


def test_memory_is_that_of_a_row_group_not_of_the_rows(folder: Path) -> None:
    limits = Limits(row_group_bytes=1_000_000, file_bytes=WIDE)
    writer = RollingWriter(folder, "train", SCHEMA, limits)
    before, peak = pa.total_allocated_bytes(), 0
    for row in range(0, 4000, 100):
        writer.add(table(row, row + 100, size=5000))  # 40 times 1 MB
        peak = max(peak, pa.total_allocated_bytes() - before)
    writer.finish()
    assert peak < 8_000_000


def test_nothing_written_is_no_file(folder: Path) -> None:
    assert RollingWriter(folder, "train", SCHEMA, Limits()).finish() == []
    assert not folder.exists()


def test_nothing_written_may_be_one_file_of_no_rows(folder: Path) -> None:
    (entry,) = RollingWriter(folder, "train", SCHEMA, Limits()).finish(at_least_one=True)
    assert (entry.path, entry.rows) == ("data/train-00000-of-00001.parquet", 0)
    assert pq.read_schema(folder / "train-00000-of-00001.parquet").equals(SCHEMA)


def test_at_least_one_adds_no_file_to_others(folder: Path) -> None:
    writer = RollingWriter(folder, "train", SCHEMA, Limits())
    writer.add(table(0, 1))
    assert [entry.rows for entry in writer.finish(at_least_one=True)] == [1]


def test_a_full_disk_is_an_error_and_what_is_open_can_be_released(folder: Path) -> None:
    before = open_files()
    writer = RollingWriter(folder, "train", SCHEMA, Limits(row_group_rows=10))
    with small_disk(2000):
        with pytest.raises(OSError, match="File too large"):
            for row in range(100):
                writer.add(to_table([ok_row(row, random_text(row, 4000))]))
        writer.abandon()
    assert open_files() == before


def test_an_abandoned_writer_holds_no_file_open(folder: Path) -> None:
    before = open_files()
    writer = RollingWriter(folder, "train", SCHEMA, Limits(row_group_rows=1))
    writer.add(table(0, 3))
    assert open_files() > before
    writer.abandon()
    assert open_files() == before

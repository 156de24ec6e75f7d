from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.dataset import Limits
from batchgen.dataset.manifest import MANIFEST
from batchgen.dataset.reader import iter_rows, open_dataset, open_partial
from batchgen.errors import Corrupt
from batchgen.storage.storage import LocalStorage
from tests.support.permissions import writable
from tests.support.result_rows import error_row, mixed_rows, ok_row, put_dataset, put_part

SMALL = Limits(row_group_rows=4, file_rows=8)
TRAIN = "data/train-00000-of-00001.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder, _ = put_dataset(tmp_path, [mixed_rows(0, 50)], n_rows=50, limits=SMALL)
    return folder


def test_a_dataset_opens_in_input_order(folder: Path) -> None:
    table = open_dataset(folder).to_table()
    assert table.schema.equals(SCHEMA)
    assert table["row"].to_pylist() == [row for row in range(50) if row % 3]
    failed = open_dataset(folder, "errors").to_table()
    assert failed["row"].to_pylist() == list(range(0, 50, 3))


def test_only_files_of_the_manifest_are_read(folder: Path) -> None:
    copy = next((folder / "data").iterdir())
    (folder / "data" / "train-99999-of-99999.parquet").write_bytes(copy.read_bytes())
    assert open_dataset(folder).count_rows() == 33


def test_a_dataset_without_errors_has_an_empty_errors_config(tmp_path: Path) -> None:
    folder, _ = put_dataset(tmp_path, [[ok_row(0)]], n_rows=1)
    table = open_dataset(folder, "errors").to_table()
    assert (len(table), table.schema) == (0, SCHEMA)


def test_a_dataset_without_answers_opens_too(tmp_path: Path) -> None:
    folder, _ = put_dataset(tmp_path, [[error_row(0)]], n_rows=1)
    assert open_dataset(folder).count_rows() == 0
    assert [row.row for row in iter_rows(folder)] == [0]


def test_a_file_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    folder, _ = put_dataset(tmp_path, [mixed_rows(0, 9)], n_rows=9)
    path = folder / TRAIN
    writable(path).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=r"train-00000-of-00001\.parquet has"):
        open_dataset(folder)
    path.unlink()
    with pytest.raises(Corrupt, match=r"train-00000-of-00001\.parquet is missing"):
        list(iter_rows(folder))


def test_an_unfinished_dataset_does_not_open(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(Corrupt, match="not a finished dataset"):
        open_dataset(folder)


def test_rows_are_merged_back_in_input_order(folder: Path) -> None:
    assert list(iter_rows(folder)) == mixed_rows(0, 50)


def test_reading_row_by_row_takes_flat_memory(tmp_path: Path) -> None:
    folder, _ = put_dataset(
        tmp_path,
        (
            [ok_row(row, "x" * 2000) for row in range(at, at + 1000)]
            for at in range(0, 10_000, 1000)
        ),
        n_rows=10_000,
    )
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in iter_rows(folder))
    assert peak < 20_000_000  # of 40 MB


def test_parts_of_a_running_job_open_in_the_order_given(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    first, second = put_part(storage, mixed_rows(0, 6)), put_part(storage, mixed_rows(9, 12), seq=2)
    keys = [second.path, first.path]
    table = open_partial(storage, keys).to_table()
    assert table["row"].to_pylist() == [9, 10, 11, 0, 1, 2, 3, 4, 5]
    assert table.schema.equals(SCHEMA)


def test_a_job_without_parts_has_no_rows_yet(tmp_path: Path) -> None:
    assert open_partial(LocalStorage(tmp_path), []).to_table().schema.equals(SCHEMA)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    part = put_part(storage, mixed_rows(0, 6))
    storage.delete(part.path)
    with pytest.raises(Corrupt, match=part.path):
        open_partial(storage, [part.path])

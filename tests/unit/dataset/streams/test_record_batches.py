from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest

from batchgen.dataset.dataset import Limits
from batchgen.dataset.result_table import to_table
from batchgen.dataset.streams import record_batches
from batchgen.dataset.streams.record_batches import dataset_batches, merged, sliced
from batchgen.errors import Corrupt
from tests.support.permissions import writable
from tests.support.result_rows import mixed_rows, ok_row, put_dataset


def batches(*groups: list[int]) -> Iterator[pa.RecordBatch]:
    for group in groups:
        yield from to_table([ok_row(row) for row in group]).to_batches()


def numbers(found: Iterator[pa.RecordBatch]) -> list[list[int]]:
    return [batch["row"].to_pylist() for batch in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([[0, 1, 5], [6, 9]], [[2, 7], [8]]),
        ([[0, 1, 2]], [[3, 4]]),
        ([[3, 4]], [[0, 1], [2]]),
        ([], [[0], [1]]),
        ([[0, 2, 4]], []),
        ([[1], [3], [5]], [[0, 2, 4, 6]]),
        ([], []),
    ],
)
def test_two_series_become_one(one: list[list[int]], other: list[list[int]]) -> None:
    expected = sorted(row for group in one + other for row in group)
    rows = numbers(merged(batches(*one), batches(*other)))
    assert [row for group in rows for row in group] == expected


def test_a_large_batch_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_batches, "MOST_ROWS", 4)
    assert numbers(sliced(batches([*range(10)]), -1)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    monkeypatch.setattr(record_batches, "MOST_BYTES", 1)
    assert numbers(sliced(batches([*range(3)]), -1)) == [[0], [1], [2]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of 100 rows, every third failed, in files of 20 rows and groups of 5."""
    limits = Limits(row_group_rows=5, file_rows=20)
    return put_dataset(tmp_path, [mixed_rows(0, 100)], n_rows=100, limits=limits)[0]


def test_rows_of_both_kinds_come_in_input_order(folder: Path) -> None:
    rows = [row for group in numbers(dataset_batches(folder)) for row in group]
    assert rows == list(range(100))
    failed = numbers(dataset_batches(folder, configs=["errors"]))
    assert [row for group in failed for row in group] == list(range(0, 100, 3))


@pytest.mark.parametrize("after", [-1, 0, 4, 5, 57, 98, 99, 1000])
def test_rows_after_a_number(folder: Path, after: int) -> None:
    found = numbers(dataset_batches(folder, columns=["row", "model"], after=after))
    assert [row for group in found for row in group] == list(range(100))[after + 1 :]


def test_groups_before_the_number_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_group = Mock(wraps=record_batches._read_group)
    monkeypatch.setattr(record_batches, "_read_group", read_group)
    assert numbers(dataset_batches(folder, after=97)) == [[98], [99]]
    assert read_group.call_count == 2


def test_a_short_file_is_corrupt(folder: Path) -> None:
    path = next((folder / "errors").iterdir())
    writable(path).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match="bytes"):
        dataset_batches(folder)

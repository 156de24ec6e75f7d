from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import KVTotals
from batchgen.core.numerics import Numerics
from batchgen.core.rows import ResultRow
from batchgen.dataset import reader
from batchgen.dataset.dataset import Limits, Segment
from batchgen.dataset.manifest import MANIFEST, read_manifest
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.result_table import from_table
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Corrupt, Fenced, NotAllowed
from batchgen.storage.storage import LocalStorage
from tests.support.disk_events import open_files, recorded_disk, small_disk
from tests.support.permissions import writable
from tests.support.result_rows import (
    ROOT,
    bytes_below,
    error_row,
    mixed_rows,
    ok_row,
    put_dataset,
    put_part,
)

SMALL = Limits(row_group_rows=4, file_rows=8)
TRAIN = "data/train-00000-of-00001.parquet"
ERRORS = "errors/errors-00000-of-00001.parquet"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "home")


def rows_in(path: Path) -> list[int]:
    with pq.ParquetFile(path) as file:
        rows: list[int] = file.read()["row"].to_pylist()
    return rows


def test_answers_and_errors_lie_apart_each_in_input_order(storage: LocalStorage) -> None:
    part = put_part(storage, mixed_rows(0, 6))
    folder, info = put_dataset(storage.root, [part, mixed_rows(6, 9)], n_rows=9)
    assert rows_in(folder / TRAIN) == [1, 2, 4, 5, 7, 8]
    assert rows_in(folder / ERRORS) == [0, 3, 6]
    assert (info.path, info.n_rows, info.n_ok, info.n_err) == (ROOT, 9, 6, 3)
    assert [entry.path for entry in info.files] == [TRAIN, ERRORS, "README.md"]


def test_every_row_comes_back_as_it_went_in(storage: LocalStorage) -> None:
    rows = mixed_rows(0, 50)
    segments: list[Segment] = [put_part(storage, rows[:20]), rows[20:21], [], rows[21:]]
    folder, _ = put_dataset(storage.root, segments, n_rows=50, limits=SMALL)
    assert list(iter_rows(folder)) == rows


def test_the_manifest_tells_sums_and_totals(storage: LocalStorage) -> None:
    folder, info = put_dataset(storage.root, [mixed_rows(0, 20)], n_rows=20, limits=SMALL)
    manifest = read_manifest(folder, sha256=info.manifest_sha256)
    assert hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest() == info.manifest_sha256
    assert (manifest.totals.rows, manifest.totals.ok, manifest.totals.errors) == (20, 13, 7)
    assert manifest.totals.prompt_tokens == 13 * 3
    assert manifest.totals.completion_tokens == 13 * 2
    assert manifest.totals.cached_tokens == 13
    assert manifest.totals.finish_reasons == FinishReasons(stop=13)
    assert [entry.rows for entry in manifest.data_files()] == [8, 5]
    assert {entry.path for entry in manifest.files} | {MANIFEST} == set(bytes_below(folder))
    assert verify_dataset(folder, manifest_sha256=info.manifest_sha256) == []


def test_the_totals_of_the_parts_are_added_up(storage: LocalStorage) -> None:
    one = KVTotals(rows=3, preemptions=1, copies=2, utilisation=1.0, sharing_saving=0.5)
    two = KVTotals(rows=1, preemptions=4, copies=8, utilisation=0.5, sharing_saving=0.0)
    parts: list[Segment] = [
        replace(put_part(storage, mixed_rows(0, 3), seq=0), kv=one),
        mixed_rows(3, 6),
        replace(put_part(storage, mixed_rows(6, 9), seq=1), kv=two),
    ]
    folder, _ = put_dataset(storage.root, parts, n_rows=9)
    expected = KVTotals(rows=4, preemptions=5, copies=10, utilisation=0.875, sharing_saving=0.375)
    totals = read_manifest(folder).totals
    assert (totals.kv, totals.rows) == (expected, 9)
    assert "87.5% of its slots filled" in (folder / "README.md").read_text()


def test_every_way_the_parts_were_computed_is_told(storage: LocalStorage) -> None:
    plain = Numerics(device="cpu", dtype="float32")
    small = Numerics(device="cpu", dtype="float32", quantize="int8", kernels="cpu")
    parts: list[Segment] = [
        put_part(storage, mixed_rows(0, 3), seq=0, numerics=(plain,)),
        mixed_rows(3, 6),
        put_part(storage, mixed_rows(6, 9), seq=1, numerics=(small, plain)),
        put_part(storage, mixed_rows(9, 12), seq=2),
    ]
    folder, _ = put_dataset(storage.root, parts, n_rows=12)
    assert read_manifest(folder).totals.numerics == (small, plain)
    told = "- Computed in: float32 with int8 weights on cpu by compiled kernels, float32 on cpu\n"
    assert told in (folder / "README.md").read_text()


def test_files_carry_the_jobs_metadata(storage: LocalStorage) -> None:
    folder, _ = put_dataset(storage.root, [mixed_rows(0, 4)], n_rows=4)
    for path in (TRAIN, ERRORS):
        metadata = pq.read_metadata(folder / path).metadata
        assert metadata[b"batchgen.model"] == b"tiny"
        assert json.loads(metadata[b"batchgen.sampling_params"]) == {
            "max_tokens": 16,
            "temperature": 0.0,
        }


@pytest.mark.parametrize("limits", [Limits(), SMALL])
def test_the_same_segments_and_meta_give_the_same_bytes(tmp_path: Path, limits: Limits) -> None:
    rows = mixed_rows(0, 40)
    written = []
    for name in ("one", "two"):
        part = put_part(LocalStorage(tmp_path / name), rows[:30])
        folder, _ = put_dataset(tmp_path / name, [part, rows[30:]], n_rows=40, limits=limits)
        written.append(bytes_below(folder))
    assert written[0] == written[1]


def test_a_part_and_its_rows_in_memory_give_the_same_bytes(tmp_path: Path) -> None:
    rows = mixed_rows(0, 40)
    part = put_part(LocalStorage(tmp_path / "one"), rows)
    one, _ = put_dataset(tmp_path / "one", [part], n_rows=40)
    two, _ = put_dataset(tmp_path / "two", [rows[:7], rows[7:]], n_rows=40)
    assert bytes_below(one) == bytes_below(two)


def test_no_errors_no_errors_folder(storage: LocalStorage) -> None:
    folder, _ = put_dataset(storage.root, [[ok_row(0)]], n_rows=1)
    assert sorted(path.name for path in folder.iterdir()) == [".batchgen", "README.md", "data"]


def test_where_every_row_failed_the_data_file_is_there_without_rows(storage: LocalStorage) -> None:
    folder, info = put_dataset(storage.root, [[error_row(0), error_row(1)]], n_rows=2)
    assert rows_in(folder / TRAIN) == []
    assert rows_in(folder / ERRORS) == [0, 1]
    assert (info.n_ok, info.n_err) == (0, 2)


def test_everything_is_durable_and_the_manifest_is_the_last_name(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.root.mkdir()
    with recorded_disk(monkeypatch) as events:
        folder, _ = put_dataset(storage.root, [mixed_rows(0, 30)], n_rows=30, limits=SMALL)
    events.check_durable(storage.root)
    assert events.renamed()[-1] == folder / MANIFEST
    manifest_named = events.log.index(("rename", folder / MANIFEST))
    for path in folder.rglob("*.parquet"):
        assert ("fsync", path.stat().st_ino) in events.log[:manifest_named]
        assert ("fsync", path.parent.stat().st_ino) in events.log[:manifest_named]


def test_memory_does_not_grow_with_the_rows(storage: LocalStorage) -> None:
    limits = Limits(row_group_bytes=1_000_000)
    before = pa.total_allocated_bytes()
    held = []

    def segments() -> Iterator[Segment]:
        for start in range(0, 4000, 100):
            held.append(pa.total_allocated_bytes() - before)
            yield [
                error_row(row) if row % 2 else ok_row(row, "x" * 5000)
                for row in range(start, start + 100)
            ]

    put_dataset(storage.root, segments(), n_rows=4000, limits=limits)
    assert max(held) < 10_000_000  # of 20 MB of answers, twice each


# ---- what must not become a dataset ----


def refused(home: Path, segments: list[Segment], *, n_rows: int) -> str:
    with pytest.raises(Corrupt) as caught:
        put_dataset(home, segments, n_rows=n_rows)
    assert not (home / ROOT).exists(), "a half-written dataset was left"
    return caught.value.message


def test_a_changed_part_is_named(storage: LocalStorage) -> None:
    part = put_part(storage, mixed_rows(0, 6))
    path = storage.path(part.path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    writable(path).write_bytes(data)
    assert f"part {part.path} was changed" in refused(storage.root, [part], n_rows=6)


def test_a_missing_part_is_named(storage: LocalStorage) -> None:
    first, second = put_part(storage, mixed_rows(0, 3)), put_part(storage, mixed_rows(3, 6), seq=1)
    storage.delete(second.path)
    message = refused(storage.root, [first, second], n_rows=6)
    assert f"part {second.path} is missing" in message


def test_a_sound_part_of_another_length_is_named(storage: LocalStorage) -> None:
    part = put_part(storage, mixed_rows(0, 6))
    wrong = type(part)(path=part.path, n_rows=5, sha256=part.sha256)
    assert f"part {part.path} holds 6 rows, not 5" in refused(storage.root, [wrong], n_rows=5)


def test_the_same_part_twice_is_named(storage: LocalStorage) -> None:
    part = put_part(storage, mixed_rows(0, 6))
    message = refused(storage.root, [part, part], n_rows=12)
    assert re.search(rf"part {re.escape(part.path)} is out of order: row 0 follows row 5", message)


@pytest.mark.parametrize(
    "rows",
    [
        [ok_row(0), ok_row(0)],
        [ok_row(1), ok_row(0)],
        [error_row(0), ok_row(0)],
        [ok_row(0), ok_row(2), ok_row(1)],
    ],
)
def test_rows_that_repeat_or_go_back_are_refused(
    storage: LocalStorage, rows: list[ResultRow]
) -> None:
    assert "out of order" in refused(storage.root, [rows], n_rows=len(rows))


@pytest.mark.parametrize(
    ("rows", "n_rows"),
    [([0, 1], 3), ([0, 2], 3), ([1, 2], 3), ([0, 1, 2], 2), ([0, 2], 2), ([], 1)],
)
def test_a_dataset_holds_every_row_of_the_input_or_is_none(
    storage: LocalStorage, rows: list[int], n_rows: int
) -> None:
    message = refused(storage.root, [[ok_row(row) for row in rows]], n_rows=n_rows)
    assert f"the input has {n_rows}" in message


def test_a_fenced_finaliser_leaves_nothing(storage: LocalStorage) -> None:
    def segments() -> Iterator[Segment]:
        yield mixed_rows(0, 30)
        raise Fenced

    before = open_files()
    with pytest.raises(Fenced) as caught:
        put_dataset(storage.root, segments(), n_rows=60, limits=SMALL)
    assert caught.tb is not None  # so that no frame is gone: what is closed was closed on purpose
    assert open_files() == before
    assert not (storage.root / ROOT).exists()


def test_a_full_disk_leaves_nothing(storage: LocalStorage) -> None:
    with small_disk(2000), pytest.raises(OSError, match="File too large"):
        put_dataset(storage.root, [mixed_rows(0, 600)], n_rows=600, limits=SMALL)
    assert not (storage.root / ROOT).exists()


def test_what_a_crash_left_is_not_mixed_in(storage: LocalStorage) -> None:
    left = storage.path(ROOT) / "data"
    left.mkdir(parents=True)
    (left / "train-00007-of-00009.parquet").write_bytes(b"half")
    folder, _ = put_dataset(storage.root, [mixed_rows(0, 3)], n_rows=3)
    assert verify_dataset(folder) == []


def test_a_finished_dataset_is_never_written_again(storage: LocalStorage) -> None:
    folder, _ = put_dataset(storage.root, [mixed_rows(0, 3)], n_rows=3)
    before = bytes_below(folder)
    with pytest.raises(NotAllowed, match="never written again"):
        put_dataset(storage.root, [mixed_rows(0, 4)], n_rows=4)
    assert bytes_below(folder) == before


def test_long_answers_are_read_a_row_group_at_a_time(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ok_row(row, "x" * 10_000) for row in range(9)]
    part = put_part(storage, rows[:5], group_bytes=45_000)
    limits = Limits(row_group_bytes=45_000)
    folder, _ = put_dataset(storage.root, [part, rows[5:]], n_rows=9, limits=limits)
    metadata = pq.read_metadata(folder / TRAIN)
    groups = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert sum(groups) == 9 and max(groups) == 2
    decoded: list[int] = []

    def counted(table: pa.Table) -> list[ResultRow]:
        decoded.append(len(table))
        return from_table(table)

    monkeypatch.setattr(reader, "from_table", counted)
    assert list(iter_rows(folder)) == rows
    assert decoded == groups

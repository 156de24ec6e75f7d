from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.dataset.dataset import DatasetInfo
from batchgen.dataset.manifest import MANIFEST
from batchgen.dataset.verify import verify_dataset
from tests.support.permissions import writable
from tests.support.result_rows import mixed_rows, put_dataset

TRAIN = "data/train-00000-of-00001.parquet"
ERRORS = "errors/errors-00000-of-00001.parquet"


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, DatasetInfo]:
    return put_dataset(tmp_path, [mixed_rows(0, 9)], n_rows=9)


@pytest.fixture
def folder(dataset: tuple[Path, DatasetInfo]) -> Path:
    return dataset[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    writable(path).write_bytes(data)


def test_a_sound_dataset_has_no_problems(dataset: tuple[Path, DatasetInfo]) -> None:
    folder, info = dataset
    assert verify_dataset(folder, manifest_sha256=info.manifest_sha256) == []


@pytest.mark.parametrize("name", [TRAIN, ERRORS, "README.md"])
def test_one_flipped_byte_is_named(folder: Path, name: str) -> None:
    flip(folder / name)
    (problem,) = verify_dataset(folder)
    assert problem == f"{name} was changed: its SHA-256 is not the one recorded."


def test_a_file_cut_short_is_named(folder: Path) -> None:
    path = folder / TRAIN
    size = path.stat().st_size
    writable(path).write_bytes(path.read_bytes()[:-1])
    assert verify_dataset(folder) == [f"{TRAIN} was changed: it has {size - 1} bytes, not {size}."]


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / ERRORS).unlink()
    assert verify_dataset(folder) == [f"{ERRORS} is missing."]


@pytest.mark.parametrize("name", ["data/train-00001-of-00002.parquet", "notes.txt", "errors/a/b"])
def test_an_extra_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert verify_dataset(folder) == [f"{name} is extra: the manifest does not name it."]


def test_every_problem_is_named_not_only_the_first(folder: Path) -> None:
    flip(folder / TRAIN)
    (folder / ERRORS).unlink()
    (folder / "data" / "more.parquet").write_bytes(b"x")
    problems = verify_dataset(folder)
    assert [problem.split()[0] for problem in problems] == [TRAIN, ERRORS, "data/more.parquet"]


def test_a_link_in_place_of_a_file_is_a_change_even_with_the_same_bytes(folder: Path) -> None:
    path = folder / TRAIN
    elsewhere = folder.parent / "elsewhere.parquet"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert verify_dataset(folder) == [f"{TRAIN} was changed: it is not a plain file."]


def test_a_linked_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "more").symlink_to(tmp_path)
    assert verify_dataset(folder) == ["more is extra: the manifest does not name it."]


def test_dot_names_at_the_top_are_no_part_of_the_dataset(folder: Path) -> None:
    (folder / ".batchgen" / "batchgen.db").write_bytes(b"x")
    (folder / ".gitattributes").write_bytes(b"x")
    assert verify_dataset(folder) == []


def test_without_a_manifest_there_is_no_dataset(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (problem,) = verify_dataset(folder)
    assert "not a finished dataset" in problem


def test_a_forged_manifest_is_noticed_where_its_sum_is_known(
    dataset: tuple[Path, DatasetInfo],
) -> None:
    folder, info = dataset
    path = folder / MANIFEST
    writable(path).write_bytes(
        path.read_bytes().replace(b'"name": "night run"', b'"name": "other run"')
    )
    assert verify_dataset(folder) == []
    (problem,) = verify_dataset(folder, manifest_sha256=info.manifest_sha256)
    assert "manifest.json was changed" in problem

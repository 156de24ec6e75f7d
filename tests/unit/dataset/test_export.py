from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.dataset.dataset import Limits
from batchgen.dataset.export import check_free, export_dataset
from batchgen.dataset.manifest import MANIFEST
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Corrupt, InvalidParameter, OutputConflict
from tests.support.disk_events import recorded_disk
from tests.support.permissions import mode
from tests.support.result_rows import bytes_below, mixed_rows, ok_row, put_dataset

SMALL = Limits(row_group_rows=4, file_rows=8)
TRAIN = "data/train-00000-of-00002.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder, _ = put_dataset(tmp_path / "home", [mixed_rows(0, 20)], n_rows=20, limits=SMALL)
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder, _ = put_dataset(tmp_path / "other", [[ok_row(0)]], n_rows=1)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_an_export_is_the_dataset(folder: Path, out: Path) -> None:
    manifest = export_dataset(folder, out)
    assert bytes_below(out) == bytes_below(folder)
    assert manifest.totals.rows == 20
    assert verify_dataset(out) == []


def test_a_copy_may_be_written_and_the_original_may_not(
    folder: Path, out: Path, umask: Callable[[int], None]
) -> None:
    umask(0o027)
    export_dataset(folder, out)
    copies = {path for path in out.rglob("*") if path.is_file()}
    kept = [path for path in folder.rglob("*") if path.is_file()]
    for copy in copies:
        with copy.open("r+b") as file:  # in place: the inode stays
            file.write(b"mine")
    assert verify_dataset(folder) == []
    assert {mode(path) for path in copies} == {0o640}
    assert {mode(path) & 0o222 for path in kept} == {0}


def test_a_moved_dataset_is_the_user_s_own(
    folder: Path, out: Path, umask: Callable[[int], None]
) -> None:
    before = bytes_below(folder)
    umask(0o027)
    export_dataset(folder, out, move=True)
    assert bytes_below(out) == before
    assert {mode(path) for path in out.rglob("*") if path.is_file()} == {0o640}
    # moved, so that a large dataset needs its place on the disk once
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / MANIFEST]


def test_a_moved_dataset_that_was_changed_stays_where_it_is(folder: Path, out: Path) -> None:
    path = folder / TRAIN
    path.chmod(0o600)
    path.write_bytes(b"changed")
    with pytest.raises(Corrupt, match=r"was changed"):
        export_dataset(folder, out, move=True)
    assert path.read_bytes() == b"changed"


def test_a_second_export_changes_nothing(folder: Path, out: Path) -> None:
    export_dataset(folder, out)
    inodes = {path: path.stat().st_ino for path in out.rglob("*")}
    export_dataset(folder, out)
    assert {path: path.stat().st_ino for path in out.rglob("*")} == inodes


def test_exporting_a_dataset_onto_itself_changes_nothing(folder: Path) -> None:
    before = bytes_below(folder)
    export_dataset(folder, folder)
    assert bytes_below(folder) == before


def test_a_lost_file_is_put_back(folder: Path, out: Path) -> None:
    export_dataset(folder, out)
    (out / TRAIN).unlink()
    export_dataset(folder, out)
    assert verify_dataset(out) == []


@pytest.mark.parametrize("crash_at", range(5))
def test_an_export_cut_short_is_completed(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    rename = Path.rename
    left = crash_at

    def dying(path: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            export_dataset(folder, out)
    assert not (out / MANIFEST).exists()
    export_dataset(folder, out)
    assert verify_dataset(out) == []
    assert (out / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()


def test_what_a_killed_export_left_is_no_hindrance(folder: Path, out: Path) -> None:
    (out / ".batchgen").mkdir(parents=True)
    (out / ".batchgen" / "export-0123456789ab.tmp").write_bytes(b"half")
    (out / ".batchgen" / ".manifest.json.0123456789ab.tmp").write_bytes(b"half")
    (out / "data").mkdir()
    shutil.copyfile(folder / TRAIN, out / TRAIN)
    export_dataset(folder, out)
    assert bytes_below(out) == bytes_below(folder)


def test_everything_is_durable_and_the_manifest_is_the_last_name(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_disk(monkeypatch) as events:
        export_dataset(folder, out)
    events.check_durable(out)
    assert ("fsync", out.parent.stat().st_ino) in events.log
    assert events.renamed()[-1] == out / MANIFEST


# ---- refusals: nothing of somebody else is touched ----


def test_a_folder_with_another_dataset_is_refused(folder: Path, other: Path, out: Path) -> None:
    export_dataset(other, out)
    before = bytes_below(out)
    with pytest.raises(OutputConflict, match="another dataset"):
        export_dataset(folder, out)
    assert bytes_below(out) == before


@pytest.mark.parametrize("name", ["notes.txt", "data/mine.parquet", TRAIN, "README.md", "data"])
def test_a_folder_with_other_files_is_refused(folder: Path, out: Path, name: str) -> None:
    path = out / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(OutputConflict):
        export_dataset(folder, out)
    assert path.read_bytes() == b"mine"
    assert not (out / MANIFEST).exists()


def test_a_linked_data_folder_is_refused(folder: Path, out: Path, tmp_path: Path) -> None:
    target = tmp_path / "canary"
    target.mkdir()
    out.mkdir(parents=True)
    (out / "data").symlink_to(target)
    with pytest.raises(OutputConflict):
        export_dataset(folder, out)
    assert list(target.iterdir()) == []


def test_an_exported_file_that_was_changed_is_not_overwritten(folder: Path, out: Path) -> None:
    export_dataset(folder, out)
    (out / "README.md").write_text("my own words")
    with pytest.raises(OutputConflict, match=r"README\.md differs"):
        export_dataset(folder, out)
    assert (out / "README.md").read_text() == "my own words"


def test_a_file_where_the_folder_should_be_is_refused(folder: Path, out: Path) -> None:
    out.parent.mkdir()
    out.write_bytes(b"mine")
    with pytest.raises(OutputConflict, match="not a folder"):
        export_dataset(folder, out)
    with pytest.raises(InvalidParameter, match="cannot be written"):
        export_dataset(folder, out / "below")
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_source_is_not_exported(folder: Path, out: Path, damage: str) -> None:
    path = folder / TRAIN
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "changed":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(Corrupt, match=rf"{TRAIN} .*{damage}|{TRAIN} is {damage}"):
        export_dataset(folder, out)
    assert not (out / MANIFEST).exists()
    assert not (out / TRAIN).exists()
    assert list((out / ".batchgen").iterdir()) == []


def test_an_unfinished_dataset_is_not_exported(folder: Path, out: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(Corrupt, match="not a finished dataset"):
        export_dataset(folder, out)
    assert not out.exists()


# ---- asking beforehand ----


def test_a_free_folder_is_missing_empty_or_our_own_home(out: Path) -> None:
    check_free(out)
    (out / ".batchgen" / "parts").mkdir(parents=True)
    (out / ".batchgen" / "batchgen.db").write_bytes(b"x")
    check_free(out)


def test_a_used_folder_is_not_free(folder: Path, out: Path) -> None:
    with pytest.raises(OutputConflict, match="holds a dataset"):
        check_free(folder)
    out.mkdir(parents=True)
    (out / "thesis.tex").write_bytes(b"x")
    with pytest.raises(OutputConflict, match=r"thesis\.tex"):
        check_free(out)
    with pytest.raises(OutputConflict, match="not a folder"):
        check_free(out / "thesis.tex")

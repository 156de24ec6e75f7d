from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from batchgen.storage import durable_files
from batchgen.storage.durable_files import make_folder, sha256_of
from tests.support.disk_events import recorded_disk


def test_each_new_folder_is_synced_into_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_disk(monkeypatch) as events:
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    above = [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    assert [value for kind, value in events.log if kind == "fsync"] == above


def test_an_existing_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded_disk(monkeypatch) as events:
        make_folder(tmp_path)
    assert events.log == []


def test_a_folder_that_could_not_be_synced_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(durable_files, "fsync", fail)
        with pytest.raises(OSError):
            make_folder(tmp_path / "a")
    with recorded_disk(monkeypatch) as events:
        make_folder(tmp_path / "a")
    assert ("fsync", tmp_path.stat().st_ino) in events.log


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert sha256_of(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()

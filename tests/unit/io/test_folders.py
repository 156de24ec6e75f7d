from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.io.folders import make_folder, sha256_of
from tests.support.disk_events import recorded_disk

if TYPE_CHECKING:
    import pytest


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


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert sha256_of(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()

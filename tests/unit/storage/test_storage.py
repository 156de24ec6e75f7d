from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.errors import InvalidParameter, StoreMismatch
from batchgen.storage.storage import LocalStorage, writing
from tests.support.disk_events import recorded_disk
from tests.support.permissions import mode


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "home")


def names(storage: LocalStorage) -> list[str]:
    return [path.name for path in storage.root.rglob("*") if path.is_file()]


def test_a_file_appears_whole_and_only_at_the_end(storage: LocalStorage) -> None:
    with storage.write("inputs/a") as pending:
        pending.file.write(b"first ")
        assert storage.size("inputs/a") is None
        pending.file.write(b"second")
    with storage.open("inputs/a") as file:
        assert file.read() == b"first second"
    assert names(storage) == ["a"]


def test_every_level_is_synced(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded_disk(monkeypatch) as events, storage.write("parts/7/0.parquet") as pending:
        pending.file.write(b"rows")
    for path in [storage.path("parts/7"), storage.path("parts"), storage.root, storage.root.parent]:
        assert ("fsync", path.stat().st_ino) in events.log


@pytest.mark.parametrize(("mask", "readable"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)])
def test_what_is_kept_is_read_only_in_a_folder_of_its_owner(
    storage: LocalStorage, umask: Callable[[int], None], mask: int, readable: int
) -> None:
    umask(mask)
    for data in (b"first", b"again"):  # the same input, submitted twice
        with storage.write("inputs/a") as pending:
            pending.file.write(data)
        assert mode(storage.path("inputs/a")) == readable
    assert mode(storage.root) == 0o700
    storage.delete("inputs/a")
    assert names(storage) == []


def test_a_home_that_somebody_else_made_keeps_its_mode(storage: LocalStorage) -> None:
    storage.root.mkdir()
    storage.root.chmod(0o2770)
    with storage.write("inputs/a") as pending:
        pending.file.write(b"rows")
    assert mode(storage.root) == 0o2770


def test_a_file_of_the_user_s_may_be_written(tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(0o027)
    with writing(tmp_path / "lines.jsonl") as file:
        file.write(b"rows")
    assert mode(tmp_path / "lines.jsonl") == 0o640


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(storage: LocalStorage, error: BaseException) -> None:
    with pytest.raises(type(error)), storage.write("inputs/a") as pending:
        pending.file.write(b"half")
        raise error
    assert names(storage) == []


def test_a_rename_that_fails_leaves_nothing(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.write("inputs/a") as pending:
        pending.file.write(b"all")
    assert names(storage) == []


@pytest.mark.parametrize("key", ["/etc/passwd", "../a", "a/../../b", "a\0b"])
def test_a_key_stays_below_the_root(storage: LocalStorage, key: str) -> None:
    with pytest.raises(InvalidParameter):
        storage.path(key)


def test_delete_is_repeatable(storage: LocalStorage) -> None:
    with storage.write("a"):
        pass
    storage.delete("a")
    storage.delete("a")
    assert storage.size("a") is None


def test_a_link_that_leads_out_of_the_root_is_refused(
    storage: LocalStorage, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    storage.root.mkdir()
    (storage.root / "parts").symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError, match="BATCHGEN_HOME"), storage.write("parts/7/0"):
        pass
    assert list(elsewhere.iterdir()) == []


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    with LocalStorage(tmp_path / "home").write("parts/7/0") as pending:
        pending.file.write(b"rows")
    assert (tmp_path / "disk" / "parts" / "7" / "0").read_bytes() == b"rows"


def test_a_folder_that_is_away_says_nothing_of_its_files(storage: LocalStorage) -> None:
    with pytest.raises(StoreMismatch, match="is mounted"):
        storage.open("inputs/a")
    storage.path("inputs").mkdir(parents=True)  # as a mount point without its disk is
    with pytest.raises(StoreMismatch, match="is mounted"):
        storage.open("inputs/a")
    with storage.write("inputs/b"):
        pass
    with pytest.raises(FileNotFoundError):
        storage.open("inputs/a")


class Away:
    """A guard to whom the store is there or away, as the test says at each look."""

    def __init__(self, *seen: bool) -> None:
        self.looks = list(seen)

    def check(self) -> bool:
        if not self.looks.pop(0):
            raise StoreMismatch
        return True

    def establish(self) -> None:
        raise AssertionError("nobody submits")


def guarded(storage: LocalStorage, *seen: bool) -> LocalStorage:
    return LocalStorage(storage.root, Away(*seen))


def test_missing_is_what_is_missing_beside_the_right_store(storage: LocalStorage) -> None:
    with storage.write("inputs/b"):
        pass
    for ask in (LocalStorage.open, LocalStorage.size, LocalStorage.delete):
        with pytest.raises(StoreMismatch):
            ask(guarded(storage, False), "inputs/a")
    with pytest.raises(StoreMismatch):  # it went while the file was looked for again
        guarded(storage, True, False).open("inputs/a")
    with pytest.raises(FileNotFoundError):
        guarded(storage, True, True).open("inputs/a")
    assert guarded(storage, True).size("inputs/a") is None


def test_a_store_that_comes_back_shows_its_files(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.write("inputs/a") as pending:
        pending.file.write(b"rows")
    storage.root.rename(storage.root.with_name("away"))

    def come_back(self: LocalStorage, top: str = "") -> bool:
        self.root.with_name("away").rename(self.root)
        return True

    monkeypatch.setattr(LocalStorage, "check", come_back)
    with storage.open("inputs/a") as file:
        assert file.read() == b"rows"


def test_nothing_is_written_where_the_store_is_not(storage: LocalStorage) -> None:
    with pytest.raises(StoreMismatch), guarded(storage, False).write("parts/7/0"):
        pass
    assert not storage.root.exists()
    with pytest.raises(StoreMismatch), guarded(storage, True, False).write("parts/7/0"):
        pass  # it went meanwhile: no row may name what was written

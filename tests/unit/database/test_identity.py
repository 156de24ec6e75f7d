from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchgen.database.database import Database
from batchgen.database.identity import IdentityManager, StoreIdentity
from batchgen.errors import StoreMismatch
from batchgen.inputs.stored_input import input_key
from batchgen.jobs.store import Store
from batchgen.storage.store_id import STORE_ID, ensure_store_id, read_store_id
from tests.support.jobs import new_job
from tests.support.workers import files_below


def homes(folder: Path) -> tuple[Path, Path]:
    """Return the folders of two homes that are not there yet."""
    return folder / "first", folder / "second"


def establish(database: Database, home: Path) -> str | None:
    """Be a submit; return the id of the store, None where the home was refused."""
    try:
        StoreIdentity(database, home).establish()
    except StoreMismatch:
        return None
    return read_store_id(home)


def put_input(store: Store, home: Path) -> None:
    """Submit a job whose input lies in a home, as a version without ids did."""
    job = store.jobs.submit(new_job())
    path = home / input_key(job.input_sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_first_submit_ties_home_and_database(database: Database, tmp_path: Path) -> None:
    home, other = homes(tmp_path)
    assert StoreIdentity(database, home).check() is False
    assert not home.exists()
    store = establish(database, home)
    assert store is not None
    row = IdentityManager(database).read()
    assert row is not None
    assert row[0] == store
    assert establish(database, home) == store
    assert StoreIdentity(database, home).check() is True
    assert files_below(home) == [STORE_ID]
    assert establish(database, other) is None
    assert not other.exists()


def test_another_home_is_refused_whatever_it_holds(database: Database, tmp_path: Path) -> None:
    home, other = homes(tmp_path)
    store = establish(database, home)
    stranger = StoreIdentity(database, other)
    with pytest.raises(StoreMismatch, match=f"{store}.*{home}.*BATCHGEN_HOME") as absent:
        stranger.check()
    assert "not there" in absent.value.message
    other.mkdir()
    with pytest.raises(StoreMismatch, match="mounted"):
        stranger.check()
    theirs = ensure_store_id(other)
    with pytest.raises(StoreMismatch, match=f"is the store {theirs}"):
        stranger.check()
    (other / STORE_ID).write_text("", encoding="ascii")
    with pytest.raises(StoreMismatch):
        stranger.check()


def test_a_home_may_be_away_and_come_back(database: Database, tmp_path: Path) -> None:
    home, other = homes(tmp_path)
    establish(database, home)
    seen = StoreIdentity(database, home)
    assert seen.check()
    home.rename(other)
    with pytest.raises(StoreMismatch):
        seen.check()
    ensure_store_id(home)  # another disk is mounted in its place
    with pytest.raises(StoreMismatch):
        seen.check()
    (home / STORE_ID).unlink()
    home.rmdir()
    other.rename(home)
    assert seen.check()


def test_what_is_older_than_ids_gets_one_where_its_jobs_are(store: Store, tmp_path: Path) -> None:
    home, other = homes(tmp_path)
    put_input(store, home)
    other.mkdir()
    ensure_store_id(other)
    for _ in range(2):
        with pytest.raises(StoreMismatch, match="no file of any job"):
            StoreIdentity(store.database, other).check()
    assert establish(store.database, other) is None
    assert StoreIdentity(store.database, home).check()
    assert IdentityManager(store.database).read() is not None
    assert read_store_id(home) not in (None, read_store_id(other))


def test_a_new_database_takes_the_home_as_it_is(database: Database, tmp_path: Path) -> None:
    """A home moves from SQLite to PostgreSQL, or its database goes back in time."""
    home, _ = homes(tmp_path)
    known = ensure_store_id(home)
    assert establish(database, home) == known


def test_a_file_without_an_id_is_not_written_over(database: Database, tmp_path: Path) -> None:
    home, _ = homes(tmp_path)
    home.mkdir()
    (home / STORE_ID).write_text("not an id", encoding="ascii")
    with pytest.raises(StoreMismatch, match="holds no id"):
        StoreIdentity(database, home).establish()
    assert (home / STORE_ID).read_text(encoding="ascii") == "not an id"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_first_ones_one_wins(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # the file system has none

        def refused(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr("os.link", refused)
    asked: Sequence[Path] = homes(tmp_path) * 4
    if not links:
        asked = asked[:1]
    with ThreadPoolExecutor(len(asked)) as threads:
        found = list(threads.map(lambda home: establish(database, home), asked))
    assert len(set(found) - {None}) == 1
    winner = IdentityManager(database).read()
    assert winner is not None
    for home, store in zip(asked, found, strict=True):
        assert store == (winner[0] if read_store_id(home) == winner[0] else None)

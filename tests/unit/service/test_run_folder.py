from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars
import pyarrow.parquet as pq
import pytest

from batchgen.dataset.verify import verify_dataset
from batchgen.errors import BadLines, InvalidParameter, OutputConflict, UnknownModel
from batchgen.jobs.records.job_records import JobRecord
from batchgen.models.record import write_record
from batchgen.service.run_folder import RunFolder
from batchgen.service.submission import Submission
from batchgen.settings import Settings
from tests.support.disk_events import killed_after
from tests.support.homes import answer_some, finish, pin_model, prompts
from tests.support.permissions import mode

GREEDY = Submission(model="tiny", params={"temperature": 0})


class Folders:
    """Opens the same output folder again and again, as runs one after the other do."""

    def __init__(self, out: Path, home: Path) -> None:
        self.out = out
        self.settings = Settings(home=home, database_url="postgresql://nowhere/none")
        self.opened: list[RunFolder] = []

    def folder(self) -> RunFolder:
        """Return the folder as a new process sees it."""
        self.opened.append(RunFolder(self.out, self.settings))
        return self.opened[-1]

    def open(self, rows: int = 4, submission: Submission = GREEDY) -> JobRecord:
        """Open the folder for so many rows."""
        return self.folder().open(io.BytesIO(prompts(rows)), submission)

    def files(self) -> dict[Path, bytes]:
        """Return every file below the folder."""
        return {path: path.read_bytes() for path in self.out.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    """An output folder that does not exist yet, and a home with a model."""
    pin_model(tmp_path / "home")
    folders = Folders(tmp_path / "deep" / "er" / "out", tmp_path / "home")
    yield folders
    for folder in folders.opened:
        folder.service.close()


def test_the_home_is_below_the_folder(folders: Folders) -> None:
    job = folders.open()
    home = folders.out / ".batchgen"
    assert (home / "batchgen.db").exists()
    assert (home / "inputs" / job.input_sha256).read_bytes() == prompts(4)
    assert [path.name for path in folders.settings.home.iterdir()] == ["models"]


def test_the_same_request_is_the_same_job(folders: Folders) -> None:
    assert folders.open() == folders.open()


@pytest.mark.parametrize(
    ("rows", "submission"),
    [
        (5, GREEDY),
        (4, Submission(model="tiny")),
        (4, Submission(model="other", params=GREEDY.params)),
    ],
)
def test_another_request_is_refused_and_touches_nothing(
    folders: Folders, rows: int, submission: Submission
) -> None:
    pin_model(folders.settings.home, "other")
    folders.open()
    before = folders.files()
    with pytest.raises(OutputConflict, match="another folder"):
        folders.open(rows, submission)
    assert folders.files() == before


def test_another_version_of_the_model_is_refused(folders: Folders) -> None:
    folders.open()
    record = folders.folder().service.models.get("tiny")
    write_record(msgspec.structs.replace(record, sha256="f" * 64), record.path)
    with pytest.raises(OutputConflict, match="another version of the model"):
        folders.open()


def test_files_of_somebody_else_are_refused(folders: Folders) -> None:
    folders.out.mkdir(parents=True)
    (folders.out / "data").mkdir()
    (folders.out / "data" / "mine.csv").write_text("1,2")
    with pytest.raises(OutputConflict, match=r"mine\.csv"):
        folders.open()
    assert list(folders.files()) == [folders.out / "data" / "mine.csv"]


@pytest.mark.parametrize(
    ("rows", "submission", "error"),
    [
        (b"{oops\n", GREEDY, BadLines),
        (b'{"prompt": "x"}\n', Submission(model="none"), UnknownModel),
        (b'{"prompt": "x"}\n', Submission(model="tiny", params={"n": 0}), InvalidParameter),
        (b"", Submission(model="tiny", params={"max_tokens": 256}), InvalidParameter),
    ],
)
def test_a_refused_request_leaves_no_folder(
    folders: Folders, rows: bytes, submission: Submission, error: type[Exception]
) -> None:
    with pytest.raises(error):
        folders.folder().open(io.BytesIO(rows), submission)
    assert not folders.out.parent.parent.exists()


def test_a_refused_request_keeps_the_folder_that_was_there(folders: Folders) -> None:
    folders.out.mkdir(parents=True)
    with pytest.raises(BadLines):
        folders.folder().open(io.BytesIO(b"{oops\n"), GREEDY)
    assert list(folders.out.iterdir()) == []


def test_a_home_that_a_killed_run_left_without_a_job_is_taken_up(folders: Folders) -> None:
    half = folders.out / ".batchgen" / "inputs"
    half.mkdir(parents=True)
    (half / ".incoming.tmp").write_bytes(b"half a file")
    assert folders.open().n_rows == 4


def test_a_folder_that_cannot_be_made(folders: Folders) -> None:
    folders.out.parent.parent.write_bytes(b"a file")
    with pytest.raises((InvalidParameter, OutputConflict)):
        folders.open()


def test_a_run_that_lost_a_race_removes_nothing(folders: Folders) -> None:
    class Slow(io.BytesIO):
        """Rows of a run that another one overtakes while it reads."""

        def read(self, *size: int | None) -> bytes:
            if self.tell() == 0:
                folders.open(5)
            return super().read(*size)

        def readinto(self, buffer: Any) -> int:
            if self.tell() == 0:
                folders.open(5)
            return super().readinto(buffer)

    with pytest.raises(OutputConflict, match="another prompt file"):
        folders.folder().open(Slow(prompts(4)), GREEDY)
    assert folders.open(5).n_rows == 5


def test_a_file_where_the_home_should_be(folders: Folders) -> None:
    folders.out.mkdir(parents=True)
    (folders.out / ".batchgen").write_bytes(b"mine")
    with pytest.raises(OutputConflict):
        folders.open()
    assert (folders.out / ".batchgen").read_bytes() == b"mine"


def test_the_dataset_takes_the_place_of_its_home(folders: Folders) -> None:
    job = folders.open()
    folder = folders.folder()
    finish(folder.service, job)
    folder.deliver(job)
    assert verify_dataset(folders.out) == []
    assert [path.name for path in (folders.out / ".batchgen").iterdir()] == ["manifest.json"]
    assert sorted(path.name for path in folders.out.iterdir()) == [
        ".batchgen",
        "README.md",
        "data",
    ]
    # and the folder is still the one of this job, and of no other
    assert folders.open().state == "completed"
    with pytest.raises(OutputConflict):
        folders.open(5)


def with_duckdb(out: Path) -> list[int]:
    with duckdb.connect() as connection:
        found = connection.execute("SELECT row FROM read_parquet(?)", [f"{out}/**/*.parquet"])
        return [row for (row,) in found.fetchall()]


READERS: dict[str, Callable[[Path], list[int]]] = {
    "pyarrow": lambda out: pq.read_table([*out.rglob("*.parquet")])["row"].to_pylist(),
    "duckdb": with_duckdb,
    "polars": lambda out: polars.read_parquet(out / "**" / "*.parquet")["row"].to_list(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_who_reads_every_parquet_file_of_a_folder_reads_each_row_once(
    folders: Folders, read: Callable[[Path], list[int]]
) -> None:
    job = folders.open(8)
    folder = folders.folder()
    answer_some(folder.service, job)
    finish(folder.service, job, failing=[2])
    folder.deliver(job)
    assert sorted(read(folders.out)) == list(range(8))


def test_a_delivery_that_is_killed_anywhere_is_finished_by_the_next_run(folders: Folders) -> None:
    """Each change to the disk is the last one of its run, until a run is not killed any more."""
    job = folders.open()
    finish(folders.folder().service, job, failing=[1])
    for survived in itertools.count():
        out = folders.out.with_name(f"out-{survived}")
        shutil.copytree(folders.out, out)
        each = Folders(out, folders.settings.home)
        with killed_after(survived) as killed:
            each.folder().deliver(job)
        # the same command again, in a process that knows nothing
        view = each.folder().deliver(each.open())
        assert (view.job.public_id, view.state, view.dataset) == (job.public_id, "completed", out)
        assert (view.rows_ok, view.rows_failed) == (3, 1)
        assert verify_dataset(out) == []
        assert [path.name for path in (out / ".batchgen").iterdir()] == ["manifest.json"]
        if not killed.happened:
            break
    assert survived > 15  # folders made, three files moved, the manifest, what is removed


def test_the_copy_of_another_job_is_refused(folders: Folders) -> None:
    job = folders.open()
    folder = folders.folder()
    finish(folder.service, job)
    copy = folders.out.parent / "copy"
    folder.service.results.export(job.public_id, copy)
    with pytest.raises(OutputConflict, match="another prompt file"):
        Folders(copy, folders.settings.home).open(5)


def test_what_is_half_done_is_private_and_the_dataset_is_as_the_umask_says(
    folders: Folders, umask: Callable[[int], None]
) -> None:
    umask(0o027)
    job = folders.open()
    assert mode(folders.out / ".batchgen") == 0o700
    folder = folders.folder()
    finish(folder.service, job)
    folder.deliver(job)
    paths = [folders.out, *folders.out.rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o750}
    assert {mode(path) for path in paths if path.is_file()} == {0o640}
    assert {path.stat().st_nlink for path in paths if path.is_file()} == {1}


def test_a_failed_job_is_named(folders: Folders) -> None:
    job = folders.open()
    folder = folders.folder()
    folder.service.store.jobs.fail(job.id, "The model is gone.")
    with pytest.raises(OutputConflict, match="The model is gone"):
        folders.open()

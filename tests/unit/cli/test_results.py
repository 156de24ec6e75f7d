from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen.dataset.verify import verify_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support import homes
from tests.support.homes import answer_some, finish
from tests.support.permissions import writable
from tests.support.result_rows import ok_row
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")


@pytest.fixture
def finished(service: Service, job: JobRecord) -> JobRecord:
    """A job of four rows that has ended; row 2 failed."""
    return finish(service, job, failing=[2])


@pytest.fixture
def running(batchgen: Command, service: Service) -> JobRecord:
    """A job of two shards, one of them committed."""
    job = service.job(batchgen.submit(rows=40))
    answer_some(service, job, failing=[2])
    return job


def test_prints_the_path_of_the_dataset(
    batchgen: Command, service: Service, finished: JobRecord
) -> None:
    path = batchgen.dataset(service.results.dataset("nightly"), finished.public_id)
    assert batchgen.ok("results", "nightly").stdout == f"{path}\n"
    assert batchgen.json("results", "nightly") == {"path": path}


def test_copies_the_dataset(batchgen: Command, finished: JobRecord) -> None:
    out = batchgen.folder / "answers"
    assert batchgen.ok("results", "nightly", "-o", out).stdout == f"{out}\n"
    assert verify_dataset(out) == []
    assert batchgen.ok("results", "nightly", "-o", out).exit_code == 0


def test_copies_over_nothing(batchgen: Command, service: Service, finished: JobRecord) -> None:
    other = service.job(batchgen.submit(rows=3))
    finish(service, other)
    out = batchgen.folder / "answers"
    batchgen.ok("results", "nightly", "-o", out)
    result = batchgen("results", other.public_id, "-o", out)
    assert result.exit_code == 2
    assert "Choose another folder" in result.stderr


def test_writes_rows_as_json_lines_in_input_order(batchgen: Command, finished: JobRecord) -> None:
    result = batchgen.ok("results", "nightly", "--format", "jsonl")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["response"] for row in rows] == ["answer 0", "answer 1", None, "answer 3"]
    assert rows[2]["error"]["code"] == "context_length_exceeded"
    assert rows[0]["created_at"].startswith("20")


def test_writes_openai_s_lines(batchgen: Command, finished: JobRecord) -> None:
    out = batchgen.folder / "output.jsonl"
    assert batchgen.ok("results", "nightly", "--format", "openai", "-o", out).stdout == f"{out}\n"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    objects = [line["response"]["body"].get("object") for line in lines]
    assert objects == ["chat.completion", "text_completion", None, "text_completion"]
    assert lines[2]["response"]["status_code"] == 400


@pytest.mark.parametrize("form", ["jsonl", "openai"])
def test_no_answer_ends_a_line(
    batchgen: Command,
    service: Service,
    job: JobRecord,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive"
    monkeypatch.setattr(homes, "ok_row", partial(ok_row, text=text))
    finish(service, job)
    lines = batchgen.ok("results", "nightly", "--format", form).stdout.splitlines()
    assert len(lines) == 4
    assert all(text in _texts(json.loads(line)) for line in lines)


def test_never_overwrites_a_file(batchgen: Command, finished: JobRecord) -> None:
    out = batchgen.file("output.jsonl", b"mine")
    assert batchgen("results", "nightly", "--format", "jsonl", "-o", out).exit_code == 2
    assert out.read_bytes() == b"mine"


def test_a_job_that_runs_names_partial(batchgen: Command, running: JobRecord) -> None:
    result = batchgen("results", running.public_id)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "--partial" in result.stderr


@pytest.mark.home
def test_partial_prints_the_parts(batchgen: Command, running: JobRecord) -> None:
    (path,) = batchgen.ok("results", running.public_id, "--partial").stdout.splitlines()
    assert pq.read_table(path)["row"].to_pylist() == list(range(32))


@pytest.mark.parametrize("form", ["jsonl", "openai"])
def test_partial_rows(batchgen: Command, running: JobRecord, form: str) -> None:
    result = batchgen.ok("results", running.public_id, "--partial", "--format", form)
    rows = [json.loads(line)["custom_id"] for line in result.stdout.splitlines()]
    assert rows == [f"row-{row}" for row in range(32)]


def test_partial_of_a_finished_job_is_all_of_it(batchgen: Command, finished: JobRecord) -> None:
    result = batchgen.ok("results", "nightly", "--partial", "--format", "jsonl")
    assert len(result.stdout.splitlines()) == 4


def test_partial_parquet_has_no_folder_to_copy(batchgen: Command, running: JobRecord) -> None:
    result = batchgen("results", running.public_id, "--partial", "-o", batchgen.folder / "x")
    assert result.exit_code == 2
    assert not (batchgen.folder / "x").exists()


def test_verify_a_job_and_a_folder(
    batchgen: Command, service: Service, finished: JobRecord
) -> None:
    out = batchgen.folder / "answers"
    batchgen.ok("results", "nightly", "-o", out)
    assert batchgen.json("verify", "nightly")["ok"]
    assert batchgen.ok("verify", out).stdout == f"{out}: ok\n"


def test_verify_names_what_changed(
    batchgen: Command, service: Service, finished: JobRecord
) -> None:
    folder = service.results.dataset("nightly")
    (part,) = (folder / "data").iterdir()
    writable(part).write_bytes(b"other")
    (folder / "errors" / "extra.parquet").write_bytes(b"")
    result = batchgen("verify", "nightly")
    assert result.exit_code == 1
    assert part.name in result.stdout
    assert "extra.parquet" in result.stdout


def test_verify_what_is_no_dataset(batchgen: Command) -> None:
    missing = batchgen("verify", "./nofolder")
    assert (missing.exit_code, "folder ./nofolder does not exist" in missing.stderr) == (2, True)
    assert batchgen("verify", batchgen.folder).exit_code == 1


def _texts(value: Any) -> Iterator[str]:
    """Yield every string below a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)

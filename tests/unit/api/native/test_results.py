from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchgen.api.native.schemas.catalogue import DatasetFileList, Verification
from batchgen.api.native.schemas.rows import Row
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.verify import verify_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.api import Api
from tests.support.permissions import writable
from tests.unit.api.native.conftest import problem

RESULTS = "/api/v1/jobs/nightly/results"


def test_json_lines(api: Api, ended: JobRecord) -> None:
    answer = api.ours.get(RESULTS)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "x-incomplete" not in answer.headers
    rows = [Row.model_validate_json(line) for line in answer.content.splitlines()]
    assert [row.row for row in rows] == list(range(80))
    assert [row.row for row in rows if row.error] == [3, 7, 40]


def test_openais_lines(api: Api, ended: JobRecord) -> None:
    answer = api.ours.get(RESULTS, params={"format": "openai"})
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert [line["response"]["status_code"] for line in lines[2:5]] == [200, 400, 200]


def test_arrow_and_parquet(api: Api, ended: JobRecord) -> None:
    arrow = api.ours.get(RESULTS, params={"format": "arrow"})
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table["row"].to_pylist() == list(range(80))
    parquet = api.ours.get(RESULTS, params={"format": "parquet"})
    assert pq.read_table(io.BytesIO(parquet.content)).equals(table)
    assert table.schema.equals(SCHEMA)
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert parquet.headers["content-disposition"].endswith(f'"{ended.public_id}.parquet"')


@pytest.mark.parametrize("form", ["jsonl", "openai", "arrow", "parquet"])
def test_a_job_that_runs_has_partial_results_only(api: Api, running: JobRecord, form: str) -> None:
    assert problem(api.ours.get(RESULTS, params={"format": form})) == (409, "not_allowed")
    answer = api.ours.get(RESULTS, params={"format": form, "partial": True})
    assert (answer.status_code, answer.headers["x-incomplete"]) == (200, "true")


def test_partial_rows_are_those_finished_so_far(api: Api, running: JobRecord) -> None:
    answer = api.ours.get(RESULTS, params={"partial": True})
    assert [json.loads(line)["row"] for line in answer.content.splitlines()] == list(range(32))


@pytest.mark.parametrize("query", [{"format": "csv"}, {"part": "1"}, {"partial": "half"}], ids=str)
def test_another_form_is_refused(api: Api, ended: JobRecord, query: dict[str, str]) -> None:
    assert problem(api.ours.get(RESULTS, params=query)) == (400, "invalid_parameter")


def test_a_damaged_dataset_is_an_error_before_the_first_byte(
    api: Api, service: Service, ended: JobRecord
) -> None:
    (path,) = (service.results.dataset("nightly") / "data").iterdir()
    writable(path).write_bytes(b"short")
    answer = api.ours.get(RESULTS)
    assert problem(answer) == (500, "internal_error")
    assert str(path) not in answer.text


def test_the_files_make_a_copy_of_the_dataset(api: Api, ended: JobRecord, tmp_path: Path) -> None:
    listed = DatasetFileList.model_validate(api.ours.get("/api/v1/jobs/nightly/files").json())
    out = tmp_path / "copy"
    for name in [*(entry.path for entry in listed.data), listed.manifest]:
        answer = api.ours.get(f"/api/v1/jobs/nightly/files/{name}")
        assert answer.status_code == 200
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(answer.content)
    assert verify_dataset(out, manifest_sha256=listed.manifest_sha256) == []
    assert {entry.rows for entry in listed.data} == {None, 77, 3}


def test_verification_names_the_file_that_was_changed(
    api: Api, ended: JobRecord, service: Service
) -> None:
    asked = "/api/v1/jobs/nightly/verification"
    assert api.ours.get(asked).json() == {"ok": True, "problems": []}
    (part,) = (service.results.dataset("nightly") / "data").iterdir()
    writable(part).write_bytes(b"other")
    found = Verification.model_validate(api.ours.get(asked).json())
    assert not found.ok
    assert part.name in found.problems[0]


def test_a_range_of_a_file(api: Api, ended: JobRecord) -> None:
    (entry, *_) = api.ours.get("/api/v1/jobs/nightly/files").json()["data"]
    path = f"/api/v1/jobs/nightly/files/{entry['path']}"
    middle = entry["bytes"] // 2
    first = api.ours.get(path, headers={"range": f"bytes=0-{middle - 1}"})
    rest = api.ours.get(path, headers={"range": f"bytes={middle}-"})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert hashlib.sha256(first.content + rest.content).hexdigest() == entry["sha256"]


@pytest.mark.parametrize(
    "name",
    [
        "data",
        "data/",
        "data/%2e%2e/README.md",
        "%2e%2e/e1/README.md",
        "..%2f..%2f..%2fbatchgen.db",
        "%2fetc%2fpasswd",
        "README.md%00",
        ".batchgen/",
        "readme.md",
    ],
)
def test_no_other_file_is_served(api: Api, ended: JobRecord, name: str) -> None:
    answer = api.ours.get(f"/api/v1/jobs/nightly/files/{name}")
    assert answer.status_code == 404
    assert str(api.service.settings.home) not in answer.text


def test_damage_is_told_without_a_path_of_the_server(
    api: Api, service: Service, ended: JobRecord
) -> None:
    folder = service.results.dataset("nightly")
    manifest = folder / ".batchgen" / "manifest.json"
    path = "/api/v1/jobs/nightly/verification"
    assert api.ours.get(path).json() == {"ok": True, "problems": []}
    writable(manifest).write_bytes(manifest.read_bytes() + b"\n")
    (changed,) = api.ours.get(path).json()["problems"]
    assert changed.startswith(".batchgen/manifest.json was changed")
    writable(manifest).unlink()
    (missing,) = api.ours.get(path).json()["problems"]
    assert missing.startswith("The dataset is not a finished dataset")


def test_a_job_that_runs_has_no_files(api: Api, running: JobRecord) -> None:
    assert problem(api.ours.get("/api/v1/jobs/nightly/files")) == (409, "not_allowed")
    assert problem(api.ours.get("/api/v1/jobs/nightly/files/README.md")) == (409, "not_allowed")

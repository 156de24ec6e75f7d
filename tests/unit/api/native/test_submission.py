from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from batchgen.api.native.schemas.jobs import CreatedJob
from batchgen.service import Service
from batchgen.tenants.quotas import Quotas
from tests.support.api import OURS, Api
from tests.support.homes import prompts
from tests.unit.api.native.conftest import Submit, problem

JOBS = "/api/v1/jobs"


def test_a_job_is_made_of_the_body_and_the_query(api: Api, service: Service) -> None:
    query: dict[str, str | int] = {
        "model": "tiny",
        "name": "nightly",
        "priority": 3,
        "window": "22:00-06:00 Europe/Berlin",
        "deadline": "2999-01-01T00:00:00Z",
        "params": json.dumps({"temperature": 0, "max_tokens": 7}),
    }
    pieces: Iterator[bytes] = (prompts(100)[at : at + 1000] for at in range(0, 10_000, 1000))
    answer = api.ours.post(JOBS, params=query, content=pieces)
    assert answer.status_code == 201
    job = CreatedJob.model_validate(answer.json())
    assert answer.headers["location"] == f"{JOBS}/{job.id}"
    assert (job.name, job.priority, job.window) == ("nightly", 3, "22:00-06:00 Europe/Berlin")
    assert job.params == {"temperature": 0, "max_tokens": 7}
    assert job.rows.total == 100
    stored = service.job(job.id)
    assert stored.key_id == api.service.access.keys.list(tenant="ours")[0].id


def test_one_key_makes_one_job(api: Api) -> None:
    def post(rows: int, key: str) -> tuple[int, str]:
        answer = api.ours.post(
            JOBS,
            params={"model": "tiny"},
            content=prompts(rows),
            headers={"idempotency-key": key},
        )
        return answer.status_code, answer.json().get("id") or answer.json()["code"]

    first = post(4, "monday")
    assert post(4, "monday") == first
    assert post(5, "monday") == (409, "not_allowed")
    assert post(4, "tuesday") != first


def test_bad_lines_are_listed_and_make_no_job(api: Api) -> None:
    body = prompts(2) + b'{"prompt": 7}\n{"max_tokens": 1}\n'
    answer = api.ours.post(JOBS, params={"model": "tiny"}, content=body)
    assert problem(answer) == (400, "bad_lines")
    assert answer.json()["total"] == 2
    assert [error["line"] for error in answer.json()["errors"]] == [3, 4]
    assert answer.json()["errors"][0]["code"] == "invalid_type"
    assert api.ours.get(JOBS).json()["data"] == []
    kept = api.ours.post(JOBS, params={"model": "tiny", "on_invalid": "row-error"}, content=body)
    assert kept.json()["rows"]["total"] == 4


def test_notices_about_the_rows_are_told(api: Api, submit: Submit) -> None:
    assert submit()["notices"] == []
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "other", "prompt": "Why?"},
    }
    answer = api.ours.post(JOBS, params={"model": "tiny"}, content=json.dumps(line))
    assert "other" in answer.json()["notices"][0]


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ({}, prompts(1), (400, "invalid_parameter")),
        ({"model": "huge"}, prompts(1), (404, "model_not_found")),
        ({"model": "../tiny"}, prompts(1), (404, "model_not_found")),
        ({"model": "tiny", "params": "[]"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "params": '{"temperature": 9}'}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "deadline": "2001-01-01"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "window": "night"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "on_invalid": "skip"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "colour": "red"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "name": "a\0b"}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny", "priority": str(1 << 40)}, prompts(1), (400, "invalid_parameter")),
        ({"model": "tiny"}, b"", (400, "empty_input")),
        ({"model": "tiny"}, b"PAR1" + bytes(100), (400, "invalid_input")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_become_a_job_is_refused(
    api: Api, query: dict[str, str], body: bytes, expected: tuple[int, str]
) -> None:
    assert problem(api.ours.post(JOBS, params=query, content=body)) == expected
    assert api.ours.get(JOBS).json()["data"] == []


def test_rows_of_a_refused_job_take_no_room(api: Api) -> None:
    key = {"idempotency-key": "mine"}
    folder = api.service.storage.root / "inputs"

    def post(body: bytes) -> int:
        return api.ours.post("/api/v1/jobs?model=tiny", content=body, headers=key).status_code

    assert post(b'{"prompt": "one"}\n') == 201
    kept = set(folder.iterdir())
    assert post(b'{"prompt": "other"}\n') == 409
    assert set(folder.iterdir()) == kept
    api.service.access.tenants.set_quotas(OURS, Quotas(max_jobs=1))
    del key["idempotency-key"]
    assert post(b'{"prompt": "another"}\n') == 429
    assert post(b'{"prompt": "one"}\n') == 429  # the rows of the first job are still needed
    assert set(folder.iterdir()) == kept

"""Jobs of the first tenant, made through its routes or its service."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.api import OURS, Api
from tests.support.homes import answer_some, finish, prompts

Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Routes hold no SQL: the tests of `jobs` and `tenants` use both databases."""
    return sqlite_url


@pytest.fixture
def service(api: Api) -> Service:
    """The service as the first tenant sees it."""
    _ = api.ours
    return api.service.for_tenant(OURS)


@pytest.fixture
def submit(api: Api) -> Submit:
    """Submit a job over HTTP and return its JSON: `submit(n_rows, **query)`."""

    def submit(rows: int = 4, **query: Any) -> dict[str, Any]:
        answer = api.ours.post(
            "/api/v1/jobs", params={"model": "tiny", **query}, content=prompts(rows)
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    return submit


@pytest.fixture
def running(submit: Submit, service: Service) -> JobRecord:
    """A job of 80 rows named `nightly`; 32 are finished, rows 3 and 7 of them failed."""
    job = service.job(submit(80, name="nightly")["id"])
    answer_some(service, job, failing=[3, 7])
    return job


@pytest.fixture
def ended(running: JobRecord, service: Service) -> JobRecord:
    """The same job, with its dataset."""
    return finish(service, running, failing=[40])


def problem(answer: Any) -> tuple[int, str]:
    """Return the status and the code of an error of the native API."""
    assert answer.headers["content-type"] == "application/problem+json"
    found = json.loads(answer.content)
    assert found["status"] == answer.status_code
    assert found["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, found["code"]

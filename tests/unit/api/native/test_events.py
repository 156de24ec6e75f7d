from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from batchgen.api.native import events
from batchgen.api.native.schemas.jobs import Job
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.api import Api, serving
from tests.support.homes import answer_some, finish
from tests.unit.api.native.conftest import Submit


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "INTERVAL", 0.01)


def changes(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the jobs of a stream of events."""
    for line in lines:
        if line.startswith("data: "):
            job = json.loads(line.removeprefix("data: "))
            Job.model_validate(job)
            yield job


@pytest.fixture
def watched(api: Api) -> Iterator[httpx2.Client]:
    """A client on a socket: an answer arrives while it is being made."""
    headers = {"authorization": f"Bearer {api.key()}"}
    with (
        serving(api.app) as url,
        httpx2.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as client,
    ):
        yield client


def test_a_job_is_sent_at_each_change_until_it_ends(
    watched: httpx2.Client, service: Service, running: JobRecord
) -> None:
    with watched.stream("GET", f"/jobs/{running.public_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = changes(answer.iter_lines())
        assert next(seen)["rows"]["done"] == 32
        answer_some(service, running, shards=2)
        assert next(seen)["rows"]["done"] == 64
        service.pause(running.public_id)
        assert next(seen)["paused"] is True
        service.resume(running.public_id)
        assert next(seen)["paused"] is False
        finish(service, running)
        assert [job["state"] for job in seen][-1] == "completed"


@pytest.mark.parametrize("path", ["/events", "/jobs/nightly/events"])
def test_a_server_that_ends_waits_for_no_watcher(
    api: Api, watched: httpx2.Client, running: JobRecord, path: str
) -> None:
    with watched.stream("GET", path) as answer:
        seen = changes(answer.iter_lines())
        assert next(seen)["id"] == running.public_id
        api.app.state.ending = True
        assert list(seen) == []


def test_jobs_are_sent_as_they_come_change_and_end(
    watched: httpx2.Client, service: Service, submit: Submit
) -> None:
    with watched.stream("GET", "/events") as answer:
        seen = changes(answer.iter_lines())
        first = submit(2)["id"]
        assert next(seen)["id"] == first
        second = submit(2)["id"]
        assert next(seen)["id"] == second
        finish(service, service.job(first))
        ended = next(job for job in seen if job["state"] == "completed")
        assert ended["id"] == first

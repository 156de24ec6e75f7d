"""Every route of a job answers another tenant as it answers for a job that does not exist."""

from __future__ import annotations

import pytest

from batchgen.jobs.records.job_records import JobRecord
from tests.support.api import Api
from tests.unit.api.native.conftest import problem


def routes(api: Api, ref: str) -> list[tuple[str, str]]:
    """Return the method and path of every route of a job."""
    return [
        (method.upper(), path.format(ref=ref, row=0, path="README.md"))
        for path, methods in api.app.openapi()["paths"].items()
        if path.startswith("/api/v1/jobs/{ref}")
        for method in methods
    ]


@pytest.mark.parametrize("name", ["id", "beginning", "name", "unknown"])
def test_a_job_of_another_tenant_is_not_there(api: Api, ended: JobRecord, name: str) -> None:
    refs = {"id": ended.public_id, "beginning": ended.public_id[:12], "name": "nightly"}
    ref = refs.get(name, "0" * 32)
    assert ("POST", f"/api/v1/jobs/{ref}/cancel") in routes(api, ref)
    for method, path in routes(api, ref):
        answer = api.theirs.request(method, path)
        assert problem(answer) == (404, "job_not_found"), (method, path)
        assert ended.public_id not in answer.text.replace(ref, "")
    assert api.ours.get(f"/api/v1/jobs/{ended.public_id}").json()["state"] == "completed"


def test_lists_hold_the_tenants_own_jobs(api: Api, ended: JobRecord) -> None:
    assert api.theirs.get("/api/v1/jobs").json() == {"data": [], "has_more": False}


def test_a_key_that_may_only_read_changes_nothing(api: Api, running: JobRecord) -> None:
    reader = api.ours_with("read")
    path = f"/api/v1/jobs/{running.public_id}"
    assert reader.get(path).status_code == 200
    for method, below in (("POST", "/cancel"), ("POST", "/pause"), ("DELETE", "")):
        assert problem(reader.request(method, path + below)) == (403, "missing_scope")
    assert problem(reader.post("/api/v1/jobs", params={"model": "tiny"})) == (403, "missing_scope")
    assert api.ours.get(path).json()["state"] == "running"

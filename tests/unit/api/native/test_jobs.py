from __future__ import annotations

from collections.abc import Callable

import pytest

from batchgen.api.native.schemas.jobs import Job, JobList
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.api import Api
from tests.support.homes import finish
from tests.unit.api.native.conftest import Submit, problem

JOBS = "/api/v1/jobs"
REFERENCES: dict[str, Callable[[str], str]] = {
    "id": lambda public_id: public_id,
    "beginning": lambda public_id: public_id[:20],
    "end": lambda public_id: public_id[-8:],
    "name": lambda _: "nightly",
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_job_by_each_of_its_names(api: Api, running: JobRecord, reference: str) -> None:
    answer = api.ours.get(f"{JOBS}/{REFERENCES[reference](running.public_id)}")
    job = Job.model_validate(answer.json())
    assert (job.id, job.state, job.name) == (running.public_id, "running", "nightly")
    assert (job.rows.total, job.rows.done, job.rows.failed) == (80, 32, 2)
    assert job.dataset is None


def test_a_dataset_is_named_by_its_path_in_the_api(api: Api, ended: JobRecord) -> None:
    answer = api.ours.get(f"{JOBS}/nightly")
    job = Job.model_validate(answer.json())
    assert job.state == "completed"
    assert job.dataset == f"{JOBS}/{ended.public_id}/results"
    assert str(api.service.settings.home) not in answer.text


def test_a_job_is_paused_resumed_cancelled_and_deleted(
    api: Api, service: Service, running: JobRecord
) -> None:
    path = f"{JOBS}/{running.public_id}"
    assert Job.model_validate(api.ours.post(f"{path}/pause").json()).paused
    assert not Job.model_validate(api.ours.post(f"{path}/resume").json()).paused
    assert problem(api.ours.delete(path)) == (409, "not_allowed")
    for _ in range(2):
        assert Job.model_validate(api.ours.post(f"{path}/cancel").json()).state == "stopping"
    assert problem(api.ours.post(f"{path}/pause")) == (409, "not_allowed")
    finish(service, running)
    for _ in range(2):
        deleted = api.ours.delete(path)
        assert (deleted.status_code, deleted.content) == (204, b"")
    assert problem(api.ours.get(path)) == (404, "job_not_found")


def test_pages_of_jobs_have_each_once_while_jobs_come_and_go(
    api: Api, service: Service, submit: Submit
) -> None:
    made = [submit(2, name=f"job {number}")["id"] for number in range(5)]
    first = JobList.model_validate(api.ours.get(JOBS, params={"limit": 2}).json())
    assert [job.id for job in first.data] == [made[4], made[3]]
    submit(2, name="newer")
    finish(service, service.job(made[4]))
    assert api.ours.delete(f"{JOBS}/{made[4]}").status_code == 204
    second = JobList.model_validate(
        api.ours.get(JOBS, params={"limit": 2, "after": made[3]}).json()
    )
    third = JobList.model_validate(api.ours.get(JOBS, params={"limit": 2, "after": made[1]}).json())
    assert [job.id for job in second.data + third.data] == [made[2], made[1], made[0]]
    assert (first.has_more, second.has_more, third.has_more) == (True, True, False)


def test_jobs_by_state_and_name(api: Api, running: JobRecord, submit: Submit) -> None:
    queued = submit(2, name="later")["id"]

    def found(**query: str) -> list[str]:
        return [job["id"] for job in api.ours.get(JOBS, params=query).json()["data"]]

    assert found(state="running") == [running.public_id]
    assert found(state="queued") == [queued]
    assert found(name="nightly") == [running.public_id]
    assert found(name="nightly", state="queued") == found(name="night") == []


@pytest.mark.parametrize(
    "query",
    [
        {"state": "asleep"},
        {"limit": "0"},
        {"limit": "501"},
        {"after": "nightly"},
        {"owner": "somebody"},
    ],
    ids=str,
)
def test_a_filter_that_is_not_known_is_refused(api: Api, query: dict[str, str]) -> None:
    answer = api.ours.get(JOBS, params=query)
    assert problem(answer) == (400, "invalid_parameter")
    assert answer.json()["param"] == next(iter(query))
    assert next(iter(query.values())) not in answer.json()["detail"] or "limit" in query


def test_a_list_goes_on_after_a_job_of_the_tenant_only(api: Api, submit: Submit) -> None:
    answer = api.theirs.get(JOBS, params={"after": submit()["id"]})
    assert problem(answer) == (404, "job_not_found")


def test_what_cannot_be_a_name_finds_nothing_on_either_database(api: Api) -> None:
    for name in ("\0", "a\0b", "x" * 201):
        answer = api.ours.get("/api/v1/jobs", params={"name": name})
        assert (answer.status_code, answer.json()["data"]) == (200, [])

"""A service for one tenant sees its own jobs, and nothing of the others."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from batchgen.errors import JobNotFound, NotAllowed
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from tests.support.homes import finish, prompts

REFERENCES: dict[str, Callable[[JobRecord], str]] = {
    "id": lambda job: job.public_id,
    "beginning": lambda job: job.public_id[:20],
    "end": lambda job: job.public_id[-8:],
    "name": lambda job: "weekly",
}
CALLS: dict[str, Callable[[Service, str], object]] = {
    "find": lambda service, ref: service.find(ref),
    "job": lambda service, ref: service.job(ref),
    "status": lambda service, ref: service.status(ref),
    "pause": lambda service, ref: service.pause(ref),
    "resume": lambda service, ref: service.resume(ref),
    "cancel": lambda service, ref: service.cancel(ref),
    "removable": lambda service, ref: service.removable(ref),
    "remove": lambda service, ref: service.remove(ref),
    "dataset": lambda service, ref: service.results.dataset(ref),
    "verify": lambda service, ref: service.results.verify(ref),
    "parts": lambda service, ref: service.results.parts(ref),
    "rows": lambda service, ref: service.results.rows(ref, partial=True),
    "lines": lambda service, ref: service.results.lines(ref, partial=True),
    "openai_lines": lambda service, ref: service.results.openai_lines(
        ref, errors=None, partial=True
    ),
}


@pytest.fixture
def acme(service: Service) -> Service:
    """The service of another tenant than the command line."""
    service.access.tenants.add("acme")
    return service.for_tenant("acme", key_id="0123456789abcdef")


@pytest.fixture
def theirs(acme: Service) -> JobRecord:
    return acme.submit(io.BytesIO(prompts(4)), Submission(model="tiny", name="weekly"))


def test_a_tenant_sees_its_own_jobs(service: Service, acme: Service, theirs: JobRecord) -> None:
    assert (theirs.tenant_id, theirs.key_id) == ("acme", "0123456789abcdef")
    assert acme.records() == [theirs]
    assert [view.job for view in acme.jobs()] == [theirs]
    assert not service.records() and not service.jobs()
    finish(acme, theirs)
    assert [record.rows_ok for record in acme.usage()] == [4]
    assert not service.usage()
    theirs = acme.job(theirs.public_id)
    for reference in REFERENCES.values():
        assert acme.job(reference(theirs)) == theirs


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("call", CALLS)
def test_another_tenant_s_job_is_unknown(
    service: Service, theirs: JobRecord, call: str, reference: str
) -> None:
    ref = REFERENCES[reference](theirs)
    with pytest.raises(JobNotFound) as caught:
        CALLS[call](service, ref)
    unknown = "".join("0" if digit != "0" else "1" for digit in ref) if ref != "weekly" else "daily"
    with pytest.raises(JobNotFound) as other:
        CALLS[call](service, unknown)
    assert caught.value.message == other.value.message.replace(unknown, ref)


def test_a_removed_job_of_another_tenant_is_unknown(
    service: Service, acme: Service, theirs: JobRecord
) -> None:
    finish(acme, theirs)
    acme.remove(theirs.public_id)
    acme.remove(theirs.public_id)
    with pytest.raises(JobNotFound):
        service.remove(theirs.public_id)


def test_a_model_is_kept_while_any_tenant_needs_it(service: Service, theirs: JobRecord) -> None:
    with pytest.raises(NotAllowed, match=theirs.public_id):
        service.remove_model("tiny")


def test_the_services_of_a_home_share_what_is_open(service: Service, acme: Service) -> None:
    assert acme.store is service.store
    assert acme.storage is service.storage
    assert acme.access is service.access
    assert acme.models is service.models

from __future__ import annotations

from collections.abc import Callable

import pytest

from batchgen.errors import JobNotFound, NotAllowed, UnknownModel
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.settings import Settings
from tests.support.homes import answer_some, finish, pin_model
from tests.support.views import a_worker

Submit = Callable[..., JobRecord]


def test_a_job_is_found_by_id_beginning_end_and_name(service: Service, submit: Submit) -> None:
    job = submit(name="nightly")
    submit(name="other")
    for ref in (job.public_id, job.public_id[:14], job.public_id[-14:], "nightly"):
        assert service.job(ref).id == job.id


def test_a_name_goes_before_the_beginning_of_an_id(service: Service, submit: Submit) -> None:
    first = submit()
    named = submit(name=first.public_id[:13])
    assert service.job(first.public_id[:13]) == named


def test_a_name_that_is_nearly_right_is_offered(service: Service, submit: Submit) -> None:
    submit(name="nightly")
    with pytest.raises(JobNotFound, match=r"Did you mean nightly\?"):
        service.job("nightyl")


def test_names_are_looked_for_among_all_jobs(
    service: Service, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.jobs.records.lookup.NAMES_SEEN", 2)
    oldest = submit(name="nightly")
    for _ in range(2):
        submit(name="weekly")
    assert service.job("nightly") == oldest
    with pytest.raises(JobNotFound, match="See `batchgen ls`"):  # only new names are suggested
        service.job("nightyl")
    with pytest.raises(JobNotFound, match="Did you mean weekly"):
        service.job("weekyl")


@pytest.mark.parametrize("ref", ["", "a" * 1_000_000, "nul\0", "\ud800", "f" * 33, "%", "____"])
def test_what_can_name_no_job_names_none(service: Service, submit: Submit, ref: str) -> None:
    submit(name="nightly")
    with pytest.raises(JobNotFound) as caught:
        service.job(ref)
    assert len(caught.value.message) < 300


def test_a_name_comes_before_the_beginning_of_an_id(service: Service, submit: Submit) -> None:
    first = submit()
    named = submit(name=first.public_id[:20])
    assert service.job(first.public_id[:20]) == named
    assert service.job(first.public_id[:21]) == first


def test_a_name_given_again_means_the_newest_job(service: Service, submit: Submit) -> None:
    jobs = [submit(name="nightly") for _ in range(3)]
    submit(name="other")
    submit()
    assert service.job("nightly") == jobs[-1]
    assert service.find("nightly") == jobs[::-1]
    assert service.find(jobs[0].public_id) == jobs[:1]


def test_jobs_of_one_state(service: Service, submit: Submit) -> None:
    queued, ended = submit(), submit()
    finish(service, ended)
    assert [view.job.id for view in service.jobs(state="completed")] == [ended.id]
    # `finish` starts every job that is due
    assert [view.job.id for view in service.jobs(state="running")] == [queued.id]
    assert [view.job.id for view in service.jobs()] == [ended.id, queued.id]


def test_a_view_has_the_workers_of_its_model(service: Service, submit: Submit) -> None:
    job = submit()
    service.store.workers.heartbeat(a_worker())
    service.store.workers.heartbeat(a_worker(id="host/2", model="other"))
    assert [worker.id for worker in service.status(job.public_id).workers] == ["host/1"]
    assert len(service.workers()) == 2


def test_cancel_keeps_what_is_done(service: Service, submit: Submit) -> None:
    job = submit(40)
    answer_some(service, job)
    assert service.cancel(job.public_id).state == "stopping"
    service.store.leases.reap()
    finish(service, job)
    view = service.status(job.public_id)
    assert (view.state, view.rows_ok, view.rows_failed) == ("cancelled", 32, 8)


def test_remove_takes_files_that_no_row_names(service: Service, submit: Submit) -> None:
    job = submit()
    finish(service, job)
    home = service.settings.home
    (home / "parts" / job.public_id / "stray.parquet").write_bytes(b"x")
    service.remove(job.public_id)
    assert not (home / "parts" / job.public_id).exists()
    assert not (home / "datasets" / job.public_id).exists()
    assert list((home / "inputs").iterdir()) == []


def test_a_model_in_use_stays(service: Service, submit: Submit) -> None:
    job = submit()
    with pytest.raises(NotAllowed, match=job.public_id):
        service.remove_model("tiny")
    finish(service, job)
    service.remove_model("tiny")
    with pytest.raises(UnknownModel):
        service.models.get("tiny")


def test_models_may_come_from_another_home(service: Service) -> None:
    elsewhere = service.settings.home.parent / "elsewhere"
    pin_model(elsewhere, "theirs")
    other = Service(Settings(home=service.settings.home), models=elsewhere / "models")
    assert other.models.names() == ["theirs"]


def test_nothing_is_opened_before_it_is_needed(service: Service) -> None:
    service.models.list()
    service.close()
    assert not (service.settings.home / "batchgen.db").exists()


def test_fsck_of_a_sound_home(service: Service, submit: Submit) -> None:
    finish(service, submit())
    assert service.fsck() == []

"""ls, status, pause, resume, cancel, rm: the commands on jobs that exist."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.homes import answer_some, finish
from tests.support.jobs import claim_first, let_expire, set_job
from tests.support.views import a_worker
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")

#: What a completed job says to it.
TOO_LATE = {
    "pause": "; it cannot be paused",
    "resume": "; it cannot be resumed",
    "cancel": ": there is nothing to cancel",
}


@pytest.fixture
def references(job: JobRecord) -> list[str]:
    """Every way to name a job."""
    return [job.public_id, job.public_id[:13], job.public_id[-12:], "nightly"]


def test_a_job_has_several_names(batchgen: Command, job: JobRecord, references: list[str]) -> None:
    batchgen.submit()
    for reference in references:
        assert batchgen.json("status", reference)["id"] == job.public_id


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["watch"],
        ["wait", "--timeout", "0"],
        ["pause"],
        ["resume"],
        ["cancel"],
        ["results", "--partial"],
        ["results"],
        ["verify"],
    ],
    ids=" ".join,
)
def test_a_name_given_again_means_the_newest_job_and_it_is_said(
    batchgen: Command, service: Service, job: JobRecord, command: list[str]
) -> None:
    ended = command[0] in ("watch", "results", "verify")
    finish(service, job)
    second = service.job(batchgen.submit("--name", "nightly", rows=40))
    if ended:
        finish(service, second)
    result = batchgen(*command, "nightly")
    assert result.exit_code in (0, 124), result.stderr
    said = result.stderr.splitlines()[0]
    assert said.startswith(f"nightly names 2 jobs; this is the newest, {second.public_id}")
    assert job.public_id not in result.output
    again = batchgen(*command, second.public_id)
    assert "names 2 jobs" not in again.stderr
    assert (again.exit_code, again.stdout) == (result.exit_code, result.stdout)


def test_cancel_takes_the_one_of_a_name_that_has_not_ended(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    second = service.job(batchgen.submit("--name", "nightly"))
    refused = batchgen("cancel", "nightly")
    assert refused.exit_code == 4
    assert "names 2 jobs, and this cannot be undone" in refused.stderr
    assert all(one.public_id in refused.stderr for one in (job, second))
    assert not any(service.job(one.public_id).stop_reason for one in (job, second))
    service.store.jobs.fail(second.id, "no reason")
    result = batchgen.ok("cancel", "nightly")
    assert f"this is the one that has not ended, {job.public_id}" in result.stderr
    assert service.job(job.public_id).stop_reason == "cancel"


def test_rm_never_guesses(batchgen: Command, service: Service, job: JobRecord) -> None:
    second = service.job(batchgen.submit("--name", "nightly"))
    finish(service, second)
    assert batchgen("rm", "nightly").exit_code == 4
    assert len(service.find("nightly")) == 2
    batchgen.ok("rm", second.public_id)
    assert service.find("nightly") == [service.job(job.public_id)]


def test_ls_in_every_format(batchgen: Command, job: JobRecord) -> None:
    second = batchgen.submit()
    listed = batchgen.ok("ls").stdout.splitlines()
    assert listed[0].split()[:3] == ["JOB", "NAME", "STATE"]
    assert [line.split()[0] for line in listed[1:]] == [second[:12], job.public_id[:12]]
    assert batchgen.ok("ls", "-q").stdout.split() == [second, job.public_id]
    assert [one["id"] for one in batchgen.json("ls")] == [second, job.public_id]


def test_ls_of_one_state_and_no_more_than_asked(batchgen: Command, job: JobRecord) -> None:
    batchgen.submit()
    batchgen.ok("cancel", "nightly")
    assert batchgen.ok("ls", "-q", "--state", "queued").stdout.count("\n") == 1
    assert batchgen.ok("ls", "-q", "--limit", 1).stdout.strip() != job.public_id


def test_ls_of_nothing_is_empty_data(batchgen: Command) -> None:
    result = batchgen.ok("ls")
    assert (result.stdout, "batchgen submit" in result.stderr) == ("", True)
    assert batchgen.json("ls") == []


@pytest.mark.home
def test_what_starts_a_worker_depends_on_whether_there_is_a_broker(
    batchgen: Command, job: JobRecord
) -> None:
    assert "batchgen up --model" in batchgen.ok("workers").stderr
    batchgen.env["BATCHGEN_BROKER_URL"] = "redis://127.0.0.1:1/0"
    assert "batchgen worker --model" in batchgen.ok("workers").stderr
    assert "batchgen worker --model tiny" in batchgen.ok("status", "nightly").stdout


def test_status_of_a_queued_job(batchgen: Command, job: JobRecord) -> None:
    shown = batchgen.ok("status", "nightly").stdout
    assert job.public_id in shown
    assert "0 of 4 done" in shown
    assert "batchgen up --model tiny" in shown
    assert "KV pool" not in shown
    kv = batchgen.json("status", "nightly")["kv"]
    assert kv == {"utilisation": None, "sharing_saving": None, "preemptions": 0, "copies": 0}
    assert batchgen.ok("status", "nightly", "-q").stdout == "queued\n"


def test_status_of_a_running_job(batchgen: Command, service: Service) -> None:
    job = service.job(batchgen.submit(rows=40))
    answer_some(service, job, failing=[3], cut=[1, 2, 4])
    service.store.workers.heartbeat(a_worker())
    shown = batchgen.json("status", job.public_id)
    assert shown["state"] == "running"
    assert shown["rows"] == {
        "total": 40,
        "done": 32,
        "ok": 31,
        "failed": 1,
        "finish_reasons": {"stop": 28, "length": 3},
    }
    assert shown["tokens"] == {"prompt": 93, "completion": 62, "cached": 31, "in_progress": 0}
    assert shown["kv"] == {
        "utilisation": 0.75,
        "sharing_saving": 0.25,
        "preemptions": 1,
        "copies": 32,
    }
    assert shown["kv_utilisation"] == 0.25
    assert shown["waiting_for"] is None
    human = batchgen.ok("status", job.public_id).stdout
    assert "Speed" in human
    assert "32 of 40 done, 1 failed, 3 cut at max_tokens\n" in human
    (row,) = batchgen.ok("ls").stdout.splitlines()[1:]
    assert row.split()[4:8] == ["32", "40", "1", "3"]
    assert "93 prompt (31 from the prefix cache), 62 completion" in human
    assert (
        "75 % of its slots filled, 25 % of its blocks saved by sharing, "
        "1 preemptions, 32 blocks copied"
    ) in human


def test_status_of_a_finished_job(batchgen: Command, service: Service, job: JobRecord) -> None:
    finish(service, job)
    shown = batchgen.json("status", "nightly")
    assert (shown["state"], shown["rows"]["ok"]) == ("completed", 4)
    assert shown["ended_at"].endswith("Z")
    folder = service.results.dataset("nightly")
    assert shown["dataset"] == batchgen.dataset(folder, job.public_id)


def test_pause_and_resume(batchgen: Command, service: Service, job: JobRecord) -> None:
    assert batchgen.ok("pause", "nightly").stdout == f"{job.public_id}  paused\n"
    assert service.job("nightly").paused
    assert batchgen.json("resume", "nightly")[0]["state"] == "queued"
    assert not service.job("nightly").paused


def test_asked_twice_nothing_changes_and_that_is_said(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    asked = {"pause": "paused", "resume": "queued", "cancel": "cancelled"}
    for command, state in asked.items():
        for times in (1, 2):
            result = batchgen.ok(command, "nightly")
            assert result.stdout == f"{job.public_id}  {state}\n"
            said = f"Job {job.public_id} is {state} already\n"
            assert result.stderr == (said if times == 2 else "")
    assert batchgen.ok("rm", job.public_id).stdout == batchgen.ok("rm", job.public_id).stdout


def test_a_job_is_cancelled_where_no_coordinator_runs(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    """The promise holds that every row is in the dataset, and `rm` needs no one either."""
    assert batchgen.json("cancel", "nightly")[0]["state"] == "cancelled"
    codes = [row.error and row.error.code for row in service.results.rows("nightly")]
    assert codes == ["batch_cancelled"] * 4
    assert service.results.verify("nightly") == []
    assert service.fsck() == []
    assert batchgen("wait", "nightly").exit_code == 1
    batchgen.ok("rm", "nightly")
    assert service.records() == []


def test_a_cancelled_job_that_a_worker_holds_is_left_to_it(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    service.store.dispatch.start_due()
    lease = claim_first(service.store, job)
    assert batchgen.ok("cancel", "nightly").stdout == f"{job.public_id}  stopping\n"
    assert "handing its rows back" in batchgen("rm", "nightly").stderr
    let_expire(service.store, lease)  # the worker is dead, and nobody reaps
    service.store.leases.reap()
    assert service.store.finalization.finalizable() == [job.id]
    final = service.store.finalization.claim(job.id, owner="host/1", ttl=60.0)
    assert final is not None
    assert batchgen.ok("cancel", "nightly").stdout == f"{job.public_id}  finalizing\n"
    service.store.finalization.release(final)
    assert batchgen.ok("cancel", "nightly").stdout == f"{job.public_id}  cancelled\n"


def test_a_stopped_job_whose_rows_are_all_answered_is_a_success(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    service.store.dispatch.start_due()
    answer_some(service, job)
    set_job(service.store, job.id, deadline=1.0)
    service.store.dispatch.expire_due()
    batchgen.ok("cancel", "nightly")
    assert service.job("nightly").state == "expired"
    for command in ("wait", "watch"):
        assert batchgen(command, "nightly").exit_code == 0


@pytest.mark.home
def test_from_another_home_a_job_is_cancelled_and_left_to_its_own(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    database = service.settings.effective_database_url
    batchgen.env |= {"BATCHGEN_HOME": str(batchgen.folder), "BATCHGEN_DATABASE_URL": database}
    result = batchgen.ok("cancel", "nightly")
    assert result.stdout == f"{job.public_id}  stopping\n"
    assert "a coordinator ends them" in result.stderr
    # the model is not missing: another home has it
    asked = ("submit", batchgen.file("more.jsonl", b"{}"), "-m", "tiny")
    for command in (asked, ("up", "-m", "tiny"), ("worker", "-m", "tiny"), ("rm", "nightly")):
        result = batchgen(*command)
        assert result.exit_code == 3
        assert "belongs to the store" in result.stderr


def test_cancel_several(batchgen: Command, service: Service, job: JobRecord) -> None:
    second = batchgen.submit()
    result = batchgen.ok("cancel", "nightly", second, "-q")
    assert result.stdout.split() == [job.public_id, second]
    assert {service.job(one).stop_reason for one in ("nightly", second)} == {"cancel"}


def test_no_job_moves_when_one_name_is_wrong(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    assert batchgen("cancel", "nightly", "nightlee").exit_code == 4
    assert service.job("nightly").stop_reason is None


def test_what_the_state_forbids_is_code_4(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    assert batchgen("rm", "nightly").exit_code == 4
    finish(service, job)
    for command, reason in TOO_LATE.items():
        result = batchgen(command, "nightly")
        assert result.exit_code == 4
        assert f"is completed{reason}" in result.stderr


def test_rm_leaves_nothing(batchgen: Command, service: Service, job: JobRecord) -> None:
    finish(service, job)
    result = batchgen.ok("rm", "nightly")
    assert result.stdout == f"{job.public_id}\n"
    left = [
        path
        for folder in ("inputs", "parts", "datasets")
        for path in (batchgen.home / folder).rglob("*")
    ]
    assert left == []
    assert batchgen("status", job.public_id).exit_code == 4


def test_rm_keeps_an_input_that_another_job_uses(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    other = service.job(batchgen.submit())
    finish(service, job)
    assert json.loads(batchgen.ok("rm", "nightly", "--json").stdout) == {"removed": [job.public_id]}
    assert service.storage.size(f"inputs/{other.input_sha256}")


def test_workers_are_listed(batchgen: Command, service: Service) -> None:
    assert batchgen.ok("workers").stdout == ""
    service.store.workers.heartbeat(a_worker())
    assert "host/1" in batchgen.ok("workers").stdout
    (shown,) = batchgen.json("workers")
    assert (shown["id"], shown["model"], shown["slots"]) == ("host/1", "tiny", 4)


def test_the_kernels_of_a_worker_are_shown_with_the_reason(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    worker = a_worker()
    kernels = {"kernels": "reference", "kernels_reason": "slower: no C++ compiler"}
    service.store.workers.heartbeat(replace(worker, stats={**worker.stats, **kernels}))
    service.store.workers.heartbeat(replace(worker, id="host/2"))  # of an earlier version
    lines = batchgen.ok("workers").stdout.splitlines()
    assert ["reference" in line for line in lines] == [False, True, False]
    shown = batchgen.ok("status", "nightly").stdout
    assert "1 on cpu by plain torch (slower: no C++ compiler)" in shown


def test_workers_show_how_their_pool_does(batchgen: Command, service: Service) -> None:
    counters = {"prefix_queries": 40, "prefix_hits": 10, "preemptions": 1234}
    worker = a_worker()
    service.store.workers.heartbeat(replace(worker, stats={**worker.stats, **counters}))
    header, line = batchgen.ok("workers").stdout.splitlines()
    assert "KV USED  PREFIX HITS  PREEMPTED" in header
    assert line.split()[6:11] == ["25", "%", "25", "%", "1,234"]
    assert batchgen.json("workers")[0]["stats"]["prefix_hits"] == 10


def test_the_pool_of_a_worker_that_never_said_is_unknown(
    batchgen: Command, service: Service
) -> None:
    service.store.workers.heartbeat(a_worker(stats={}))
    assert batchgen.ok("workers").stdout.splitlines()[1].split()[6:9] == ["-", "-", "0"]

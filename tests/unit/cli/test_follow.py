from __future__ import annotations

import json

import pytest

from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import JobView, Service
from tests.support.homes import finish
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")


@pytest.fixture
def ending(service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The job ends, with these rows failed, while it is being waited for."""
    failing: list[int] = []

    def end(_: float) -> None:
        if not service.job(job.public_id).state.ended:
            finish(service, job, failing=failing, cut=[0, 3])

    monkeypatch.setattr("batchgen_cli.follow.sleep", end)
    return failing


def test_watch_ends_with_the_job(batchgen: Command, ending: list[int]) -> None:
    result = batchgen("watch", "nightly")
    assert (result.exit_code, result.stdout) == (0, "")
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("queued")
    assert "4/4 rows, 0 failed, 2 cut at max_tokens" in result.stderr
    assert "2 answers were cut at max_tokens; -p max_tokens=N" in result.stderr
    assert last.startswith("Dataset: ")


def test_watch_of_failed_rows_is_code_1(batchgen: Command, ending: list[int]) -> None:
    ending.append(2)
    result = batchgen("watch", "nightly")
    assert result.exit_code == 1
    assert "1 of 4 rows failed" in result.stderr


def test_watch_as_json_writes_events(batchgen: Command, job: JobRecord, ending: list[int]) -> None:
    result = batchgen("watch", "nightly", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["state"] for event in events] == ["queued", "completed"]
    assert {event["id"] for event in events} == {job.public_id}
    assert result.stderr == ""


@pytest.mark.home
@pytest.mark.parametrize("command", ["watch", "wait"])
def test_a_database_that_is_busy_for_a_moment_ends_nothing(
    batchgen: Command, ending: list[int], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    status, busy = Service.status, [DatabaseUnavailable("busy: database is locked")] * 3

    def look(service: Service, job: str) -> JobView:
        if busy:
            raise busy.pop()
        return status(service, job)

    monkeypatch.setattr(Service, "status", look)
    monkeypatch.setattr("batchgen_cli.commands.wait.time.sleep", lambda _: None)
    result = batchgen(command, "nightly")
    assert result.exit_code == 0
    assert result.stderr.count("Waiting: busy: database is locked") == 1
    assert busy == []


def test_ctrl_c_detaches_and_cancels_nothing(
    batchgen: Command, service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchgen_cli.follow.sleep", interrupt)
    result = batchgen("watch", "nightly")
    assert result.exit_code == 130
    assert f"batchgen watch {job.public_id}" in result.stderr
    assert service.job("nightly").state == "queued"


def test_submit_and_watch(
    batchgen: Command, service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        for record in service.records(state="queued"):
            service.cancel(record.public_id)
            finish(service, record)

    monkeypatch.setattr("batchgen_cli.follow.sleep", sleep)
    prompt_file = batchgen.folder / "prompts-4.jsonl"
    result = batchgen("submit", prompt_file, "-m", "tiny", "--watch")
    assert result.exit_code == 1
    public_id = result.stdout.strip()
    assert service.job(public_id).state == "cancelled"


def test_wait_returns_when_every_job_has_ended(
    batchgen: Command, job: JobRecord, service: Service
) -> None:
    second = service.job(batchgen.submit())
    finish(service, job)
    finish(service, second)
    result = batchgen.ok("wait", "nightly", second.public_id)
    assert result.stdout.splitlines() == [
        f"{job.public_id}  completed",
        f"{second.public_id}  completed",
    ]
    assert [one["state"] for one in batchgen.json("wait", "nightly")] == ["completed"]


def test_wait_of_failed_rows_is_code_1(batchgen: Command, job: JobRecord, service: Service) -> None:
    finish(service, job, failing=[0])
    assert batchgen("wait", "nightly").exit_code == 1


def test_wait_gives_up_with_code_124(batchgen: Command, job: JobRecord) -> None:
    result = batchgen("wait", "nightly", "--timeout", "0.01")
    assert (result.exit_code, result.stdout) == (124, "")
    assert job.public_id in result.stderr

from __future__ import annotations

from dataclasses import replace

import pytest

from batchgen.core.states import JobState
from batchgen.jobs.store import Store
from batchgen.telemetry.tracing import Stage
from batchgen_workers.service import job_trace
from batchgen_workers.service.job_trace import trace_job
from tests.support.jobs import running_job


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    stages: list[Stage] = []
    monkeypatch.setattr(job_trace, "record_job", stages.append)
    monkeypatch.setattr(job_trace, "record_stage", stages.append)
    return stages


def test_the_stages_of_a_job_follow_each_other(store: Store, written: list[Stage]) -> None:
    job = replace(
        running_job(store),
        state=JobState.COMPLETED,
        created_at=1.0,
        started_at=3.0,
        finalizing_at=8.0,
        ended_at=9.0,
    )
    trace_job(job)
    assert [(stage.name, stage.began, stage.ended) for stage in written] == [
        ("job", 1.0, 9.0),
        ("wait", 1.0, 3.0),
        ("compute", 3.0, 8.0),
        ("finalize", 8.0, 9.0),
    ]
    assert {stage.job for stage in written} == {job.public_id}
    assert written[0].attributes == {"model": job.model, "rows": 100, "state": "completed"}


def test_a_job_that_never_ran_has_waited(store: Store, written: list[Stage]) -> None:
    job = replace(
        running_job(store),
        state=JobState.EXPIRED,
        created_at=1.0,
        started_at=None,
        finalizing_at=4.0,
        ended_at=5.0,
    )
    trace_job(job)
    assert [stage.name for stage in written] == ["job", "wait", "finalize"]


def test_a_job_that_goes_on_has_no_trace_yet(store: Store, written: list[Stage]) -> None:
    trace_job(running_job(store))
    assert written == []

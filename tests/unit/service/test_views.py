from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.states import JobState
from batchgen.service.views import starts_worker
from batchgen.settings import Settings
from tests.support.views import a_view

# 1970-01-02 00:00 UTC, outside and before a window of 02:00-03:00 UTC
MIDNIGHT = 86400.0


def test_rows_of_a_running_job_are_what_workers_reported() -> None:
    view = a_view(done=40, failed=3)
    assert (view.rows_total, view.rows_done, view.rows_ok, view.rows_failed) == (100, 40, 37, 3)
    assert (view.is_running, view.has_ended, view.succeeded) == (True, False, False)


def test_rows_of_a_cancelled_job_that_were_never_computed_count_as_failed() -> None:
    view = a_view(done=40, failed=3, state=JobState.CANCELLED, dataset=Path("/d"), ended_at=1060.0)
    assert (view.rows_done, view.rows_ok, view.rows_failed) == (100, 37, 63)
    assert view.has_ended
    assert not view.succeeded
    assert view.elapsed_seconds == 60.0


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.EXPIRED, JobState.CANCELLED])
@pytest.mark.parametrize(("failed", "succeeded"), [(0, True), (1, False)])
def test_a_job_succeeds_only_without_failed_rows(
    state: JobState, failed: int, succeeded: bool
) -> None:
    view = a_view(done=100, failed=failed, state=state, dataset=Path("/d"))
    assert view.succeeded is succeeded


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "running"),
        ({"paused": True}, "paused"),
        ({"paused": True, "state": JobState.QUEUED}, "paused"),
        ({"paused": True, "state": JobState.STOPPING}, "stopping"),
    ],
)
def test_state(changes: dict[str, Any], state: str) -> None:
    assert a_view(**changes).state == state


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"paused": True}, "batchgen resume"),
        (
            {"state": JobState.QUEUED, "not_before": MIDNIGHT + 3600},
            "starts 1970-01-02 01:00+00:00",
        ),
        ({"window_spec": "02:00-03:00 UTC"}, "its window opens 1970-01-02 02:00+00:00"),
        ({"window_spec": "02:00-03:00 Mars/Base"}, "cannot be read here: 'Mars/Base' is not a"),
        ({"workers": ()}, "batchgen up --model tiny"),
    ],
)
def test_what_a_job_waits_for(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert reason in (a_view(now=MIDNIGHT, **changes).waiting_for or "")


def test_what_starts_a_worker_is_what_works_here() -> None:
    view = replace(a_view(workers=()), starter=starts_worker(Settings(broker_url="redis://host/0")))
    assert view.waiting_for == "waits for a worker: batchgen worker --model tiny"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_spec": "00:00-03:00 UTC"},
        {"state": JobState.FINALIZING, "workers": ()},
        {"state": JobState.COMPLETED, "workers": ()},
    ],
)
def test_a_job_that_waits_for_nothing(changes: dict[str, Any]) -> None:
    assert a_view(now=MIDNIGHT, **changes).waiting_for is None


def test_a_job_that_has_not_started_took_no_time() -> None:
    assert a_view(started_at=None, state=JobState.QUEUED).elapsed_seconds is None


def test_what_is_left_is_what_was_expected_until_rows_tell_more() -> None:
    view = a_view(running=1000, answer_tokens=50.0)
    assert (view.tokens_left, view.fraction) == (4000.0, 0.2)
    # four rows' worth of what was expected beside sixteen that took 25 tokens each
    later = a_view(done=16, tokens=400, running=100, answer_tokens=50.0)
    assert later.tokens_left == 84 * (4 * 50 + 400) / 20 - 100


def test_longer_rows_than_expected_still_take_something() -> None:
    assert a_view(running=9000, answer_tokens=50.0).tokens_left == 100.0


def test_nobody_can_tell_what_nobody_expects() -> None:
    view = a_view(running=1000)
    assert (view.tokens_left, view.fraction) == (None, 0.0)


def test_a_dataset_is_all_that_there_is() -> None:
    assert a_view(done=100, tokens=500, dataset=Path("/d")).fraction == 1.0

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from batchgen.core.kv_totals import KVTotals
from batchgen.core.states import JobState, StopReason
from batchgen.service import JobView, Meter
from batchgen.service.job_json import job_json, view_of_json, worker_json, worker_of_json
from tests.support.views import a_view, a_worker

QUEUED = a_view(workers=(), state=JobState.QUEUED, started_at=None, not_before=2000.0)
RUNNING = a_view(done=40, failed=3, cut=2, tokens=900, running=70, answer_tokens=31.5)
IN_WORK = replace(
    RUNNING,
    progress=replace(
        RUNNING.progress,
        rows_in_work=7,
        tokens_in_work=55,
        kv=KVTotals(rows=9, preemptions=2, copies=5, utilisation=0.75, sharing_saving=0.5),
    ),
)
ENDED = a_view(
    done=100,
    failed=1,
    dataset=Path("datasets"),
    state=JobState.CANCELLED,
    stop_reason=StopReason.CANCEL,
    deadline=5000.0,
    window_spec="22:00-06:00 Europe/Berlin",
    ended_at=1500.25,
)


@pytest.mark.parametrize("view", [QUEUED, RUNNING, IN_WORK, ENDED])
def test_a_client_computes_the_same_from_the_json(view: JobView) -> None:
    sent = orjson.loads(orjson.dumps(job_json(view)))
    received = view_of_json(sent, workers=view.workers, dataset=view.dataset)
    assert job_json(received) == job_json(view)
    assert received.tokens_left == view.tokens_left
    assert received.elapsed_seconds == view.elapsed_seconds
    assert (received.succeeded, received.rows_cut) == (view.succeeded, view.rows_cut)
    assert Meter().observe(received) == Meter().observe(view)


def test_a_job_has_the_workers_of_its_model() -> None:
    other = a_worker(id="host/2", model="other")
    received = view_of_json(job_json(RUNNING), workers=[other, a_worker()])
    assert received.workers == (a_worker(),)


def test_a_worker_is_read_again_whatever_a_later_server_adds() -> None:
    sent = orjson.loads(orjson.dumps({**worker_json(a_worker()), "temperature": 71}))
    assert worker_of_json(sent) == a_worker()

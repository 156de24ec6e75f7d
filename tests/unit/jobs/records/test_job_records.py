from __future__ import annotations

import pytest

from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import Progress, Renewal
from batchgen.jobs.store import Store
from tests.support.jobs import claim_first, running_job


@pytest.mark.parametrize(
    ("state", "paused", "goes_on"),
    [
        (JobState.RUNNING, False, True),
        (JobState.RUNNING, True, False),
        (JobState.STOPPING, False, False),
        (JobState.FAILED, False, False),
    ],
)
def test_a_renewal_tells_whether_to_go_on(state: JobState, paused: bool, goes_on: bool) -> None:
    assert Renewal(state=state, paused=paused).goes_on is goes_on


def test_the_progress_of_nothing_is_complete() -> None:
    assert Progress().fraction == 1.0
    assert Progress(n_rows=8, rows_done=2).fraction == 0.25


def test_log_context_says_which_and_no_more(store: Store) -> None:
    job = running_job(store, name="a secret name", params={"stop": ["a secret"]})
    lease = claim_first(store, job)
    assert job.log_context() == {"job": job.public_id, "model": job.model}
    assert lease.log_context() == {
        "job": job.public_id,
        "shard": lease.shard_id,
        "epoch": lease.epoch,
    }

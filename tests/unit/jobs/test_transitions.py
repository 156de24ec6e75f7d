from __future__ import annotations

import pytest

from batchgen.core.states import TRANSITIONS, JobState
from batchgen.errors import JobNotFound, NotAllowed
from batchgen.jobs import transitions
from batchgen.jobs.store import Store
from tests.support.jobs import new_job, set_job, state_of


@pytest.mark.parametrize("start", JobState)
def test_only_the_moves_of_the_table_are_made(store: Store, start: JobState) -> None:
    job = store.jobs.submit(new_job())
    for end in JobState:
        set_job(store, job.id, state=start, manifest_sha256="0" * 64)
        with store.database.begin() as connection:
            locked = transitions.lock_job(connection, job.id)
            if end in TRANSITIONS[start]:
                assert transitions.move(connection, locked, end).state is end
            else:
                with pytest.raises(NotAllowed, match=f"{start}"):
                    transitions.move(connection, locked, end)
        assert state_of(store, job) is (end if end in TRANSITIONS[start] else start)


def test_a_job_that_is_not_there(store: Store) -> None:
    with pytest.raises(JobNotFound), store.database.begin() as connection:
        transitions.lock_job(connection, 12345)

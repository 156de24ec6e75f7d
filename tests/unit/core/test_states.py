from __future__ import annotations

import pytest

from batchgen.core.states import (
    OUTCOME,
    SHARD_TRANSITIONS,
    TRANSITIONS,
    JobState,
    ShardState,
    StopReason,
)


def test_every_state_stands_in_its_table() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert set(SHARD_TRANSITIONS) == set(ShardState)


@pytest.mark.parametrize("state", JobState)
def test_every_job_can_end(state: JobState) -> None:
    seen, ahead = {state}, [state]
    while ahead:
        new = TRANSITIONS[ahead.pop()] - seen
        seen |= new
        ahead += new
    assert any(reached.ended for reached in seen)


def test_a_job_that_ended_never_changes() -> None:
    ended = {state for state in JobState if state.ended}
    assert ended == {JobState.COMPLETED, JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED}


def test_parts_are_accepted_only_before_the_finaliser_reads_them() -> None:
    assert {state for state in JobState if state.accepts_parts} == {
        JobState.RUNNING,
        JobState.STOPPING,
    }


def test_the_outcome_of_every_reason_follows_finalizing() -> None:
    assert set(OUTCOME) == {None, *StopReason}
    assert set(OUTCOME.values()) <= TRANSITIONS[JobState.FINALIZING]


def test_only_a_lease_leads_to_a_part() -> None:
    before = {state for state, after in SHARD_TRANSITIONS.items() if ShardState.COMMITTED in after}
    assert before == {ShardState.LEASED}

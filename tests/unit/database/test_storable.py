from __future__ import annotations

import pytest

from batchgen.core.states import JobState
from batchgen.database.storable import LIMIT, storable
from batchgen.jobs.store import Store
from tests.support.jobs import claim_first, running_job, shard


@pytest.mark.parametrize(
    ("words", "stored"),
    [
        ("no space left", "no space left"),
        ("a\0b", "a b"),
        ("half a \ud83d", "half a ?"),
        ("ü€😀", "ü€😀"),
        ("x" * (LIMIT + 1), "x" * LIMIT),
    ],
)
def test_words_become_storable(words: str, stored: str) -> None:
    assert storable(words) == stored


def test_any_words_of_an_exception_can_be_reported(store: Store) -> None:
    job = running_job(store)
    lease = claim_first(store, job)
    store.leases.release(lease, error="\0\ud83d")
    assert shard(store, lease.shard_id).last_error == " ?"
    assert store.jobs.fail(job.id, "\0\ud83d").state is JobState.FAILED

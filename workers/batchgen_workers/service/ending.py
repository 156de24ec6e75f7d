"""Ends stopped jobs in the process that stopped them, if no coordinator does."""

from __future__ import annotations

import time
from collections.abc import Collection

from batchgen.core.states import JobState, ShardState
from batchgen.jobs.store import Store
from batchgen.settings import Settings
from batchgen.storage.storage import Storage
from batchgen_workers.service.finaliser import Finaliser

PATIENCE = 1.5  # seconds; a coordinator claims a stopped job at its next tick
POLL = 0.05  # seconds between two looks at the jobs


def end_stopped(settings: Settings, store: Store, storage: Storage, jobs: Collection[int]) -> None:
    """Write the datasets of those stopped jobs, given by internal id, that no worker computes.

    Waits for a coordinator to do it first, and does not disturb one that has begun. A job with
    leased shards is left to its workers.
    """
    store.leases.reap()
    deadline = time.monotonic() + PATIENCE
    while (waiting := _without_lease(store, jobs)) and time.monotonic() < deadline:
        time.sleep(POLL)
    if waiting:
        finaliser = Finaliser(store=store, storage=storage, ttl=settings.lease_ttl)
        finaliser.run_once(only=waiting)


def _without_lease(store: Store, jobs: Collection[int]) -> set[int]:
    return {
        job
        for job in jobs
        if store.jobs.by_id(job).state in (JobState.STOPPING, JobState.FINALIZING)
        and not store.jobs.count_shards(job)[ShardState.LEASED]
    }

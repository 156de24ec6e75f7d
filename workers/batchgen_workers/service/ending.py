"""Ends stopped jobs in the process that stopped them, where no coordinator does it."""

from __future__ import annotations

import time
from collections.abc import Collection

from batchgen.core.states import JobState, ShardState
from batchgen.jobs.store import Store
from batchgen.settings import Settings
from batchgen.storage.storage import Storage
from batchgen_workers.service.finaliser import Finaliser

PATIENCE = 1.5  # seconds; a coordinator takes a stopped job up at its next tick
LOOK_INTERVAL = 0.05  # seconds


def end_stopped(settings: Settings, store: Store, storage: Storage, jobs: Collection[int]) -> None:
    """Write the datasets of those jobs that are stopped, that no worker holds and nobody ends.

    A coordinator goes first, and goes on with what it has begun. Jobs that workers hold are left
    to them; jobs are internal ids.
    """
    store.leases.reap()
    give_up = time.monotonic() + PATIENCE
    while (waiting := _unheld(store, jobs)) and time.monotonic() < give_up:
        time.sleep(LOOK_INTERVAL)
    if waiting:
        finaliser = Finaliser(store=store, storage=storage, ttl=settings.lease_ttl)
        finaliser.run_once(only=waiting)


def _unheld(store: Store, jobs: Collection[int]) -> set[int]:
    return {
        job
        for job in jobs
        if store.jobs.by_id(job).state in (JobState.STOPPING, JobState.FINALIZING)
        and not store.jobs.count_shards(job)[ShardState.LEASED]
    }

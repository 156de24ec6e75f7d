"""Taking over what a dead process left in a home of one's own."""

from __future__ import annotations

from sqlalchemy import update

from batchgen.core.states import JobState, ShardState
from batchgen.database.tables import jobs, shards, workers
from batchgen.jobs.store import Store


def release_dead_leases(store: Store) -> int:
    """End every lease in the database at once and return how many shards came back.

    Only for a process that holds the home's lock and has not claimed anything: no other worker
    can be alive then, and waiting for the leases to run out would wait for nobody.
    """
    with store.database.begin() as connection:
        connection.execute(
            update(shards).where(shards.c.state == ShardState.LEASED).values(lease_expires_at=0.0)
        )
        connection.execute(
            update(jobs)
            .where(jobs.c.state == JobState.FINALIZING, jobs.c.final_owner.is_not(None))
            .values(final_expires_at=0.0)
        )
        # what was rung for lies in a queue that died with its process
        connection.execute(
            update(shards).where(shards.c.enqueued_at.is_not(None)).values(enqueued_at=None)
        )
        connection.execute(workers.delete())
    return store.leases.reap()

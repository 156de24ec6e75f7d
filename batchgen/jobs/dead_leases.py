"""Release the leases that a dead process left in a home."""

from __future__ import annotations

from sqlalchemy import update

from batchgen.core.states import JobState, ShardState
from batchgen.database.tables import jobs, shards, workers
from batchgen.jobs.store import Store


def release_dead_leases(store: Store) -> int:
    """End every lease in the database at once and return how many shards came back.

    Call this only in a process that holds the home's lock and has claimed nothing. Then no other
    worker is alive, so there is no reason to wait until the leases run out.
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
        # published shards were in a queue that ended with its process
        connection.execute(
            update(shards).where(shards.c.enqueued_at.is_not(None)).values(enqueued_at=None)
        )
        connection.execute(workers.delete())
    return store.leases.reap()

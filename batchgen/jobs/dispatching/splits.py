"""Splits: divide a long shard so that idle workers can compute the rows that have not begun.

coordinator  asks for it          give_up = true on the leased shard with the most rows left
its worker   learns it            when it renews the lease
             splits it            parent ─► [start, cut) still its own │ [cut, end) ready
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from batchgen.core.states import JobState, ShardState
from batchgen.database.database import now_db
from batchgen.database.tables import checkpoints, jobs, shard_is, shards
from batchgen.database.transactions import Manager, repeatable
from batchgen.errors import Fenced
from batchgen.jobs.leases import GOES_ON, NO_LEASE, held
from batchgen.jobs.records.job_records import Lease

MIN_LEFT = 64  # rows that a shard must have left, so that a split pays


class SplitManager(Manager):
    """The transactions that divide a shard in two."""

    @repeatable
    def ask(self, connection: Connection, model: str) -> int | None:
        """Ask the owner of a model's longest leased shard to split it, and return its id.

        Returns None if a shard is ready, if an earlier request was not answered yet, or if no
        shard has enough rows left.
        """
        if connection.execute(_ready(model)).first() is not None:
            return None
        longest = connection.execute(_leased_longest_first(model)).first()
        if longest is None or longest.asked or longest.rows_left < MIN_LEFT:
            return None
        connection.execute(
            update(shards)
            .where(shards.c.id == longest.id, shard_is(ShardState.LEASED))
            .values(give_up=True)
        )
        return int(longest.id)

    @repeatable
    def split(self, connection: Connection, lease: Lease, *, cut: int, ttl: float) -> Lease:
        """Divide a leased shard at position `cut`; return the lease of the first part.

        The first part keeps owner, epoch and checkpoint, for `ttl` seconds. The second part, from
        `cut` on, is ready for any worker. Raises Fenced if the lease is lost.
        """
        assert lease.pos_start < cut < lease.pos_end, (lease, cut)
        job = select(jobs.c.state).where(jobs.c.id == lease.job_id).with_for_update(read=True)
        state = connection.execute(job).scalar()
        parent = connection.execute(
            update(shards)
            .where(held(lease))
            .values(state=ShardState.SPLIT, rows_done=0, give_up=False, **NO_LEASE)
            .returning(shards)
        ).one_or_none()
        if parent is None:
            return _split_already(connection, lease)
        first = _insert_child(
            connection,
            parent,
            lease.pos_start,
            cut,
            state=ShardState.LEASED,
            epoch=lease.epoch,
            attempts=lease.attempts,
            lease_owner=lease.owner,
            lease_expires_at=now_db() + ttl,
            lease_seconds=ttl,
        )
        rest = ShardState.READY if state in GOES_ON else ShardState.STOPPED
        _insert_child(connection, parent, cut, lease.pos_end, state=rest)
        connection.execute(
            update(checkpoints)
            .where(checkpoints.c.shard_id == lease.shard_id)
            .values(shard_id=first)
        )
        return replace(lease, shard_id=first, pos_end=cut)


def _ready(model: str) -> Select[Any]:
    return (
        select(shards.c.id)
        .join(jobs, jobs.c.id == shards.c.job_id)
        .where(
            jobs.c.state == JobState.RUNNING,
            jobs.c.paused.is_(False),
            jobs.c.model == model,
            shard_is(ShardState.READY),
        )
        .limit(1)
    )


def _leased_longest_first(model: str) -> Select[Any]:
    """Select the leased shards of a model: one already asked first, then by rows left."""
    rows_left = (shards.c.n_rows - shards.c.rows_done).label("rows_left")
    return (
        select(shards.c.id, shards.c.give_up.label("asked"), rows_left)
        .join(jobs, jobs.c.id == shards.c.job_id)
        .where(
            jobs.c.state == JobState.RUNNING,
            jobs.c.paused.is_(False),
            jobs.c.model == model,
            shard_is(ShardState.LEASED),
            shards.c.lease_expires_at > 0.0,  # so SQLite uses the index of leased shards
        )
        .order_by(shards.c.give_up.desc(), rows_left.desc())
        .limit(1)
    )


def _insert_child(
    connection: Connection, parent: Row[Any], start: int, end: int, **values: Any
) -> int:
    child = {
        "job_id": parent.job_id,
        "parent_id": parent.id,
        "pos_start": start,
        "pos_end": end,
        "n_rows": end - start,
        "lost": parent.lost,
        "deaths": parent.deaths,
        "failures": parent.failures,
        **values,
    }
    found = connection.execute(insert(shards).values(child).returning(shards.c.id))
    return int(found.scalar_one())


def _split_already(connection: Connection, lease: Lease) -> Lease:
    """Return the result of an earlier run of this split that committed; raise Fenced."""
    first = connection.execute(
        select(shards.c.id, shards.c.pos_end).where(
            shards.c.parent_id == lease.shard_id,
            shards.c.pos_start == lease.pos_start,
            shards.c.epoch == lease.epoch,
            shards.c.lease_owner == lease.owner,
        )
    ).one_or_none()
    if first is None:
        raise Fenced
    return replace(lease, shard_id=first.id, pos_end=first.pos_end)

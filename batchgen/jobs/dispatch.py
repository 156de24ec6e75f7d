"""Dispatch: which shards' doorbells ring now. SQL is the outbox, the broker only a bell.

Ringing twice is harmless and not ringing is repaired after `redispatch_after` seconds, so any
number of dispatchers may run at once, and the broker may lose whatever it likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, select, update

from batchgen.jobs import moves
from batchgen.jobs.database import now_db
from batchgen.jobs.leases import is_open
from batchgen.jobs.records import JobRecord
from batchgen.jobs.states import JobState, ShardState, StopReason
from batchgen.jobs.tables import jobs, shard_is, shards
from batchgen.jobs.transactions import Manager, reading, repeatable, transaction

ShardIds = list[int]
ModelNames = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job whose shards may be dispatched now."""

    id: int
    # highest priority first, then the nearest deadline
    rank: tuple[int, float]
    # shards leased or rung for: what a fair share counts from
    in_flight: int


class DispatchManager(Manager):
    """The transactions of the coordinator that start jobs and hand out shards."""

    @repeatable
    def start_due(self, connection: Connection) -> int:
        """Start queued jobs whose not_before has passed and whose window is open; count them.

        A paused job stays queued.
        """
        now = self.database.now(connection)
        due = select(jobs).where(
            jobs.c.state == JobState.QUEUED, jobs.c.paused.is_(False), jobs.c.not_before <= now
        )
        started = 0
        for job in _locked(connection, due):
            if is_open(job.window_spec, now):
                moves.move(connection, job, JobState.RUNNING, started_at=now_db())
                started += 1
        return started

    @repeatable
    def expire_due(self, connection: Connection) -> int:
        """Stop queued and running jobs whose deadline has passed; count them."""
        late = select(jobs).where(
            jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)), jobs.c.deadline <= now_db()
        )
        expired = _locked(connection, late)
        for job in expired:
            moves.stop(connection, job, StopReason.EXPIRE)
        return len(expired)

    @reading
    def models_with_work(self, connection: Connection) -> ModelNames:
        """Return the models of running, unpaused jobs that have a ready shard."""
        return list(connection.execute(_open_jobs(jobs.c.model).distinct()).scalars())

    @transaction
    def take(
        self, connection: Connection, model: str, *, limit: int, redispatch_after: float
    ) -> ShardIds:
        """Return the shards to ring for, best first, and note that they were rung for now.

        At most `limit` doorbells are outstanding for a model, so that priorities keep their say:
        what lies in the broker can no longer be ordered. Shards rung for less than
        `redispatch_after` seconds ago count as outstanding, later they are rung for again.
        Order: priority, deadline, then the job with the fewest shards in flight. Paused jobs
        and closed windows are passed over.
        """
        now = self.database.now(connection)
        stale = now - redispatch_after
        rung = _count_rung(connection, model, stale)
        room = limit - rung.total()
        if room <= 0:
            return []
        chosen: list[int] = []
        candidates = _candidates(connection, model, now, rung)
        for _, equals in groupby(candidates, key=lambda job: job.rank):
            if len(chosen) < room:
                chosen += _share(connection, equals, room - len(chosen), stale)
        if chosen:
            marked = update(shards).where(shards.c.id.in_(chosen)).values(enqueued_at=now_db())
            connection.execute(marked)
        return chosen

    @repeatable
    def unmark(self, connection: Connection, shard_ids: Collection[int]) -> None:
        """Ring for these shards again at once: publishing them failed."""
        connection.execute(
            update(shards).where(shards.c.id.in_(shard_ids)).values(enqueued_at=None)
        )


def _locked(connection: Connection, query: Select[Any]) -> list[JobRecord]:
    # another coordinator is at the rows that are locked already
    rows = connection.execute(query.order_by(jobs.c.id).with_for_update(skip_locked=True))
    return [JobRecord.from_row(row) for row in rows]


def _open_jobs(*columns: Any) -> Select[Any]:
    has_ready = (
        select(shards.c.id)
        .where(shards.c.job_id == jobs.c.id, shard_is(ShardState.READY))
        .correlate(jobs)
        .exists()
    )
    return select(*columns).where(
        jobs.c.state == JobState.RUNNING, jobs.c.paused.is_(False), has_ready
    )


def _count_rung(connection: Connection, model: str, stale: float) -> Counter[int]:
    """Count, by job, the ready shards rung for since `stale`."""
    query = (
        select(shards.c.job_id)
        .join(jobs, jobs.c.id == shards.c.job_id)
        .where(
            jobs.c.state == JobState.RUNNING,
            jobs.c.model == model,
            shard_is(ShardState.READY),
            shards.c.enqueued_at >= stale,
        )
    )
    return Counter(connection.execute(query).scalars())


def _count_leased(connection: Connection) -> Counter[int]:
    """Count the leased shards by job."""
    # Counted here, because a GROUP BY would walk the index of all shards. Every lease has an
    # expiry: to name it leads SQLite to the index of the leased ones.
    leased = (shard_is(ShardState.LEASED), shards.c.lease_expires_at > 0.0)
    return Counter(connection.execute(select(shards.c.job_id).where(*leased)).scalars())


def _candidates(
    connection: Connection, model: str, now: float, rung: Counter[int]
) -> list[Candidate]:
    """Return the jobs that may be worked on at `now`, in the order they are to be served."""
    query = _open_jobs(jobs.c.id, jobs.c.priority, jobs.c.deadline, jobs.c.window_spec)
    leased = _count_leased(connection)
    found = [
        Candidate(
            id=job.id,
            rank=(-job.priority, float("inf") if job.deadline is None else job.deadline),
            in_flight=rung[job.id] + leased[job.id],
        )
        for job in connection.execute(query.where(jobs.c.model == model))
        if is_open(job.window_spec, now)
    ]
    return sorted(found, key=lambda job: (job.rank, job.in_flight, job.id))


def _share(
    connection: Connection, equals: Iterable[Candidate], room: int, stale: float
) -> list[int]:
    """Return up to `room` due shards of jobs of one rank, the job with fewest in flight first."""
    turns: list[tuple[int, int, int]] = []
    # `room` jobs are enough: each has a shard to give
    for job in list(equals)[:room]:
        due = _due(connection, job.id, room, stale)
        turns += [(job.in_flight + turn, job.id, shard_id) for turn, shard_id in enumerate(due)]
    return [shard_id for _, _, shard_id in sorted(turns)[:room]]


def _due(connection: Connection, job_id: int, room: int, stale: float) -> list[int]:
    """Return shards of a job that may be rung for, in input order, none another holds."""
    not_rung = shards.c.enqueued_at.is_(None) | (shards.c.enqueued_at < stale)
    query = (
        select(shards.c.id)
        .where(
            shards.c.job_id == job_id,
            shard_is(ShardState.READY),
            shards.c.not_before <= now_db(),
            not_rung,
        )
        .order_by(shards.c.pos_start)
        .limit(room)
    )
    return list(connection.execute(query.with_for_update(skip_locked=True)).scalars())

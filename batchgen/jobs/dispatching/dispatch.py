"""Dispatch: choose the shards whose ids are published to the broker now.

A message only tells a worker that a shard is ready; SQL decides who gets it. A shard may be
published twice, and if a message is lost it is published again after `redispatch_after` seconds.
So any number of dispatchers may run at once, and the broker may lose messages.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Double,
    Integer,
    Select,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from batchgen.core.states import JobState, ShardState, StopReason
from batchgen.database.clock import SLACK, is_due
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, shard_is, shards
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.jobs import transitions
from batchgen.jobs.dispatching.fairness import Candidate, InFlight, turns
from batchgen.jobs.dispatching.openings import is_open
from batchgen.jobs.records.job_records import JobRecord

ShardIds = list[int]
ModelNames = list[str]


DUE_AT_ONCE = 1000  # jobs that are read at a time
EXPIRING = (JobState.QUEUED, JobState.RUNNING)
JOBS_AT_ONCE = 100  # jobs in one statement; SQLite allows 500


class DispatchManager(Manager):
    """The transactions of the coordinator that start jobs and choose shards to publish."""

    @repeatable
    def start_due(self, connection: Connection) -> int:
        """Start the queued jobs that may run now, and return how many.

        Their `not_before` has passed and their window is open. A paused job stays queued.
        """
        now = self.database.now(connection)
        started = 0
        for job in _due_jobs(connection, now):
            if is_open(connection, job, now):
                transitions.move(connection, job, JobState.RUNNING, started_at=now_db(), error=None)
                started += 1
        return started

    @repeatable
    def expire_due(self, connection: Connection) -> int:
        """Stop queued and running jobs whose deadline has passed, and return how many."""
        late = select(jobs).where(
            # Not an IN of the states that may expire: SQLite would use the index of states.
            jobs.c.state.not_in([state for state in JobState if state not in EXPIRING]),
            jobs.c.ended_at.is_(None),
            jobs.c.deadline <= self.database.now(connection),
        )
        expired = _locked(connection, late.order_by(jobs.c.deadline))
        for job in expired:
            transitions.stop(connection, job, StopReason.EXPIRE)
        return len(expired)

    @reading
    def models_with_work(self, connection: Connection) -> ModelNames:
        """Return the models of running, unpaused jobs that have a ready shard."""
        unended = connection.execute(_unended_models()).scalars()
        return [model for model in unended if _has_work(connection, model)]

    @transaction
    def take(
        self, connection: Connection, model: str, *, limit: int, redispatch_after: float
    ) -> ShardIds:
        """Return the shards to publish, first ones first, and mark them as published now.

        At most `limit` messages are outstanding for a model, because messages in the broker
        cannot be reordered by priority. A shard is outstanding for `redispatch_after` seconds;
        then it is published again, and at once if the clock was set back.
        Order: priority, deadline, then by turns of tenants and of their jobs. Paused jobs and
        jobs with a closed window are left out.
        """
        now = self.database.now(connection)
        stale = now - redispatch_after
        lately = shards.c.enqueued_at.between(stale, now + SLACK)
        published = _count(connection, model, shard_is(ShardState.READY), lately)
        room = limit - published.jobs.total()
        if room <= 0:
            return []
        chosen: list[int] = []
        in_flight = _with_leased(connection, model, published)
        candidates = _candidates(connection, model, now)
        for _, equals in groupby(candidates, key=lambda job: job.rank):
            if len(chosen) < room:
                chosen += _share(connection, list(equals), in_flight, room - len(chosen), stale)
        if chosen:
            marked = update(shards).where(shards.c.id.in_(chosen)).values(enqueued_at=now_db())
            connection.execute(marked)
        return chosen

    @repeatable
    def unmark(self, connection: Connection, shard_ids: Collection[int]) -> None:
        """Let these shards be published again at once, because publishing them failed."""
        connection.execute(
            update(shards).where(shards.c.id.in_(shard_ids)).values(enqueued_at=None)
        )


def _due_jobs(connection: Connection, now: float) -> Iterator[JobRecord]:
    """Yield the queued jobs whose `not_before` has passed, and lock them."""
    # In the order of the index and with a limit: PostgreSQL would otherwise read all jobs, because
    # `not_before` has passed for most of them, although for few that are queued.
    due = select(jobs).where(
        jobs.c.state == JobState.QUEUED, jobs.c.paused.is_(False), jobs.c.not_before <= now
    )
    position = tuple_(jobs.c.not_before, jobs.c.id)
    ordered, after = due.order_by(jobs.c.not_before, jobs.c.id).limit(DUE_AT_ONCE), (-1.0, 0)
    while found := _locked(connection, ordered.where(position > after)):
        yield from found
        after = found[-1].not_before, found[-1].id


def _locked(connection: Connection, query: Select[Any]) -> list[JobRecord]:
    # another coordinator handles the rows that are locked already
    rows = connection.execute(query.with_for_update(skip_locked=True))
    return [JobRecord.from_row(row) for row in rows]


@cache
def _unended_models() -> Select[Any]:
    """Return the query for the models of jobs that have not ended, each found by one step.

    A DISTINCT would read all of those jobs.
    """
    first = select(func.min(jobs.c.model)).where(jobs.c.ended_at.is_(None))
    models = select(first.scalar_subquery().label("model")).cte("models", recursive=True)
    following = first.where(jobs.c.model > models.c.model).correlate(models).scalar_subquery()
    models = models.union_all(select(following).where(models.c.model.is_not(None)))
    return select(models.c.model).where(models.c.model.is_not(None))


def _has_work(connection: Connection, model: str) -> bool:
    query = _open_jobs(jobs.c.id).where(jobs.c.model == model)
    return connection.execute(query.limit(1)).first() is not None


def _open_jobs(*columns: Any) -> Select[Any]:
    has_ready = (
        select(shards.c.id)
        .where(shards.c.job_id == jobs.c.id, shard_is(ShardState.READY))
        .correlate(jobs)
        .exists()
    )
    return select(*columns).where(
        jobs.c.state == JobState.RUNNING,
        jobs.c.ended_at.is_(None),  # for the index of the few jobs of a model that have not ended
        jobs.c.paused.is_(False),
        has_ready,
    )


def _count(connection: Connection, model: str, *which: ColumnElement[bool]) -> InFlight:
    """Count shards of a model by job and by tenant."""
    # Count in Python, because a GROUP BY would scan the index of all shards, and choose the model
    # there, because SQLite would read all jobs of the model, also those that have ended.
    query = (
        select(jobs.c.id, jobs.c.tenant_id, jobs.c.model)
        .join_from(shards, jobs, jobs.c.id == shards.c.job_id)
        .where(*which)
    )
    found = [row for row in connection.execute(query) if row.model == model]
    return InFlight(
        jobs=Counter(row.id for row in found), tenants=Counter(row.tenant_id for row in found)
    )


def _with_leased(connection: Connection, model: str, published: InFlight) -> InFlight:
    # Every lease has an expiry. With this condition SQLite uses the index of leased shards.
    leased = (shard_is(ShardState.LEASED), shards.c.lease_expires_at > 0.0)
    held = _count(connection, model, *leased)
    return InFlight(jobs=published.jobs + held.jobs, tenants=published.tenants + held.tenants)


def _candidates(connection: Connection, model: str, now: float) -> list[Candidate]:
    """Return the jobs that may run at `now`, sorted by rank."""
    columns = (
        *(jobs.c.id, jobs.c.tenant_id, jobs.c.priority, jobs.c.deadline),
        *(jobs.c.window_spec, jobs.c.error),
    )
    asked = connection.execute(_open_jobs(*columns).where(jobs.c.model == model)).all()
    found = [
        Candidate(
            id=job.id,
            tenant=job.tenant_id,
            rank=(-job.priority, float("inf") if job.deadline is None else job.deadline),
        )
        for job in asked
        if is_open(connection, job, now)
    ]
    return sorted(found, key=lambda job: job.rank)


def _share(
    connection: Connection,
    equals: Sequence[Candidate],
    in_flight: InFlight,
    room: int,
    stale: float,
) -> list[int]:
    """Return at most `room` shards to publish of jobs of one rank, by turns."""
    capacity: dict[int, int] = {}
    while True:
        order = turns(equals, in_flight, room, capacity)
        wanted = Counter(order)
        due = _due(connection, wanted, stale)
        short = {job: len(due[job]) for job, count in wanted.items() if len(due[job]) < count}
        if not short:
            return [due[job].popleft() for job in order]
        # turns that these jobs cannot use go to other jobs
        capacity |= short


def _due(connection: Connection, wanted: Mapping[int, int], stale: float) -> dict[int, deque[int]]:
    """Return, by job, shards to publish in input order, without those locked by others."""
    due: dict[int, deque[int]] = {job_id: deque() for job_id in wanted}
    pending = list(wanted.items())
    for at in range(0, len(pending), JOBS_AT_ONCE):
        some = pending[at : at + JOBS_AT_ONCE]
        asked: dict[str, float] = {"stale": stale}
        for number, (job_id, count) in enumerate(some):
            asked |= {f"job_{number}": job_id, f"count_{number}": count}
        found = connection.execute(_due_of(len(some)), asked)
        for shard in sorted(found, key=lambda row: row.pos_start):
            due[shard.job_id].append(shard.id)
    return due


@cache
def _due_of(n_jobs: int) -> CompoundSelect[Any]:
    """Return the query for shards of `n_jobs` jobs. Building it takes longer than running it."""
    return union_all(*[_due_shards(number) for number in range(n_jobs)])


def _due_shards(number: int) -> Select[Any]:
    stale: BindParameter[float] = bindparam("stale", type_=Double())
    query = (
        select(shards.c.id, shards.c.job_id, shards.c.pos_start)
        .where(
            shards.c.job_id == bindparam(f"job_{number}"),
            shard_is(ShardState.READY),
            is_due(),
            or_(
                shards.c.enqueued_at.is_(None),
                shards.c.enqueued_at < stale,
                shards.c.enqueued_at > now_db() + SLACK,
            ),
        )
        .order_by(shards.c.pos_start)
        .limit(bindparam(f"count_{number}", type_=Integer()))
    )
    # in a UNION only a subquery may have an order, a limit and locks
    return select(query.with_for_update(skip_locked=True).subquery())

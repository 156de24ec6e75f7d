"""Statistics of the work that waits, for those who watch the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from batchgen.calendar.windows import Window
from batchgen.core.states import JobState, ShardState
from batchgen.database.clock import is_recent
from batchgen.database.tables import jobs, shard_is, shards, workers
from batchgen.database.transactions import Manager, reading
from batchgen.errors import InvalidParameter

NOT_ENDED = tuple(state for state in JobState if not state.ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatistics:
    """The ready shards of all jobs of one model that are not paused and whose time has come."""

    shards: int
    # Seconds since the oldest of these jobs was submitted.
    oldest_age: float
    # True if the window of one of them is open, or if it has none.
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatistics:
    """The workers of one model."""

    alive: int
    slots: int
    # Seconds since the last heartbeat of any of them.
    heartbeat_age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The state of the service at one moment; queues and workers are by model."""

    # unended ones, by the word of their state
    jobs: dict[str, int]
    queues: dict[str, QueueStatistics]
    workers: dict[str, WorkerStatistics]


class StatisticsManager(Manager):
    """The one transaction that counts waiting work; indexes make it cheap."""

    @reading
    def read(self, connection: Connection, *, alive_within: float) -> Statistics:
        """Return the statistics; a worker lives with a heartbeat in `alive_within` seconds."""
        now = self.database.now(connection)
        return Statistics(
            jobs=_count_jobs(connection),
            queues=_queues(connection, now),
            workers=_workers(connection, now, alive_within),
        )


def _count_jobs(connection: Connection) -> dict[str, int]:
    counted = connection.execute(
        select(jobs.c.state, func.count()).where(jobs.c.state.in_(NOT_ENDED)).group_by(jobs.c.state)
    )
    zeros = {state.value: 0 for state in NOT_ENDED}
    return zeros | {state: int(count) for state, count in counted}


def _queues(connection: Connection, now: float) -> dict[str, QueueStatistics]:
    ready = (
        select(func.count())
        .where(shards.c.job_id == jobs.c.id, shard_is(ShardState.READY))
        .correlate(jobs)
        .scalar_subquery()
    )
    found = connection.execute(
        select(jobs.c.model, jobs.c.window_spec, jobs.c.created_at, ready.label("ready")).where(
            jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)),
            jobs.c.paused.is_(False),
            jobs.c.not_before <= now,
        )
    )
    return _by_model((job for job in found if job.ready), now)


def _by_model(waiting: Iterable[Any], now: float) -> dict[str, QueueStatistics]:
    depth: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    is_open: dict[str, bool] = {}
    for job in waiting:
        depth[job.model] += job.ready
        oldest[job.model] = min(oldest.get(job.model, now), job.created_at)
        is_open[job.model] = is_open.get(job.model, False) or _is_open(job.window_spec, now)
    return {
        model: QueueStatistics(shards=count, oldest_age=now - oldest[model], is_open=is_open[model])
        for model, count in depth.items()
    }


def _is_open(window: str | None, now: float) -> bool:
    try:
        return window is None or Window.parse(window).is_open(now)
    except InvalidParameter:  # this machine does not know the time zone
        return False


def _workers(
    connection: Connection, now: float, alive_within: float
) -> dict[str, WorkerStatistics]:
    alive = is_recent(workers.c.heartbeat_at, alive_within)
    found = connection.execute(
        select(
            workers.c.model,
            func.count().filter(alive).label("alive"),
            func.coalesce(func.sum(workers.c.slots).filter(alive), 0).label("slots"),
            func.max(workers.c.heartbeat_at).label("last"),
        ).group_by(workers.c.model)
    )
    return {
        row.model: WorkerStatistics(
            alive=row.alive, slots=int(row.slots), heartbeat_age=max(0.0, now - row.last)
        )
        for row in found
    }

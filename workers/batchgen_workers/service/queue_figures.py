"""The figures of a coordinator: what waits in SQL, asked for at most every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector

from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.records.statistics import Statistics
from batchgen.jobs.store import Store
from batchgen.telemetry import catalogue
from batchgen.telemetry.families import gauge, gauges

if TYPE_CHECKING:
    from prometheus_client import Metric as Family


KEPT_FOR: Final = 5.0  # seconds that an answer of the database is shown


class QueueFigures(Collector):
    """Makes metrics of the queues, jobs and workers of one database."""

    def __init__(self, store: Store, *, alive_within: float) -> None:
        """Prepare to read; a worker lives with a heartbeat in the last `alive_within` seconds."""
        self._store = store
        self._alive_within = alive_within
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._statistics: Statistics | None = None

    def collect(self) -> Iterator[Family]:
        """Yield the present figures; without a database only that it is down."""
        statistics = self._recent()
        yield gauge(catalogue.DATABASE_UP, statistics is not None)
        if statistics is None:
            return
        yield gauges(catalogue.JOBS, statistics.jobs)
        queues = statistics.queues
        yield gauges(catalogue.QUEUE_DEPTH, {name: one.shards for name, one in queues.items()})
        ages = {name: one.oldest_age for name, one in queues.items()}
        yield gauges(catalogue.QUEUE_OLDEST_AGE, ages)
        yield gauges(catalogue.WINDOW_OPEN, {name: one.is_open for name, one in queues.items()})
        workers = statistics.workers
        yield gauges(catalogue.WORKERS, {name: one.alive for name, one in workers.items()})
        yield gauges(catalogue.WORKER_SLOTS, {name: one.slots for name, one in workers.items()})
        heartbeats = {name: one.heartbeat_age for name, one in workers.items()}
        yield gauges(catalogue.HEARTBEAT_AGE, heartbeats)

    def _recent(self) -> Statistics | None:
        with self._lock:
            if time.monotonic() - self._read_at > KEPT_FOR:
                self._statistics = self._read()
                self._read_at = time.monotonic()
            return self._statistics

    def _read(self) -> Statistics | None:
        try:
            return self._store.statistics.read(alive_within=self._alive_within)
        except DatabaseUnavailable:
            return None

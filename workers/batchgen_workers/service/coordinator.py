"""The loop that keeps jobs moving: starts, expires, reaps, dispatches, finalises.

Any number may run on PostgreSQL; each statement is safe beside its like. An SQLite home has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Protocol, TypeVar

from batchgen.database.identity import open_storage
from batchgen.errors import BrokerUnavailable, DatabaseUnavailable, StoreMismatch, Unavailable
from batchgen.failpoints import reach
from batchgen.jobs.store import Store
from batchgen.repair.garbage import Collector
from batchgen.settings import Settings
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.periodic import PeriodicThread
from batchgen_workers.queue.app import create_app
from batchgen_workers.queue.publisher import ShardPublisher
from batchgen_workers.retry import await_database
from batchgen_workers.service.finaliser import Finaliser
from batchgen_workers.service.home_lock import locked_home
from batchgen_workers.signals import on_ending

DOORBELLS_PER_SLOT = 4
MISSED_BEATS = 3  # heartbeats a live worker may be late by

log = get_logger(__name__)

Result = TypeVar("Result")


def run_coordinator(settings: Settings) -> None:
    """Coordinate until a signal to end comes, then close every connection.

    A database that is away is waited for. Must be called in the main thread.

    Raises:
        BrokerUnavailable: none is configured; one that is down is waited for.
        SchemaMismatch, StoreMismatch, DatabaseDamaged: the database cannot be used.
        HomeLocked: another coordinator runs on this SQLite home.
    """
    stopping = CancelToken()
    with ExitStack() as opened, on_ending(stopping.cancel):
        publisher = ShardPublisher(create_app(settings))
        opened.callback(publisher.close)
        try:
            store = Store(await_database(settings, stopping))
        except DatabaseUnavailable:
            if not stopping.is_cancelled:
                raise
            return
        opened.callback(store.close)
        alone = locked_home(settings.home) if store.database.is_sqlite else nullcontext()
        with alone, Coordinator(settings, store=store, publisher=publisher).running():
            log.info("coordinating", database=store.database.shown)
            stopping.event.wait()


class Publisher(Protocol):
    """Where the ids of ready shards go: to a broker, or to a queue of this process."""

    def publish(self, model: str, shard_ids: Sequence[int]) -> list[int]:
        """Take shards of a model, in this order; return those that could not be taken."""

    def waiting(self, model: str) -> int:
        """Return how many shards wait; raise BrokerUnavailable."""


class Coordinator:
    """Moves every job of one database a step at each tick.

    run_coordinator(settings)                                     a process of its own
    Coordinator(settings, store=…, publisher=…).running()          beside a worker
    """

    def __init__(self, settings: Settings, *, store: Store, publisher: Publisher) -> None:
        """Prepare to coordinate over connections that are there."""
        self._settings = settings
        self._publisher = publisher
        self._store = store
        storage = open_storage(store.database, settings.home)
        self.finaliser = Finaliser(store=self._store, storage=storage, ttl=settings.lease_ttl)
        self._collector = Collector(self._store, storage, min_age=settings.garbage_age)
        self._collector.on_trouble = _say_garbage_left
        #: Called after a job has ended here.
        self.on_ended: Callable[[], None] = lambda: None
        # Models whose publisher could not be rung at the last attempt.
        self._silent: set[str] = set()
        # A large dataset takes minutes to write; dispatch goes on meanwhile.
        self._periodic = [
            PeriodicThread("coordinator", settings.coordinator_interval, self.tick),
            PeriodicThread("finaliser", settings.coordinator_interval, self.finalise),
        ]
        # Nothing waits for this one: it is never nudged.
        self._sweeper = PeriodicThread("garbage", settings.garbage_interval, self.collect)

    def tick(self) -> None:
        """Start and expire jobs, take back dead leases, ring for ready shards."""
        dispatch = self._store.dispatch
        started = _apart("starting jobs", dispatch.start_due)
        expired = _apart("expiring jobs", dispatch.expire_due)
        reaped = _apart("reaping leases", self._store.leases.reap)
        if started or expired or reaped:
            log.info("jobs moved", started=started, expired=expired, leases_reaped=reaped)
        self._dispatch()

    def finalise(self) -> None:
        """Write the datasets that are due."""
        if self.finaliser.run_once():
            self.on_ended()

    def collect(self) -> None:
        """Remove the files that nobody will ever read."""
        removed: list[int] = []
        try:
            for garbage in self._collector.collect():
                removed.append(garbage.bytes)
                if self.finaliser.token.is_cancelled:
                    break
        except StoreMismatch as error:
            log.warning("store not seen", error=error.message)
        if removed:
            log.info("garbage collected", files=len(removed), bytes=sum(removed))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tick in threads of its own for the block."""
        for periodic in (*self._periodic, self._sweeper):
            periodic.start()
        try:
            yield
        finally:
            self.finaliser.token.cancel()
            for periodic in (*self._periodic, self._sweeper):
                periodic.stop()

    def nudge(self) -> None:
        """Tick now: something has changed in this process."""
        for periodic in self._periodic:
            periodic.nudge()

    def _dispatch(self) -> None:
        alive_within = MISSED_BEATS * self._settings.heartbeat_interval
        slots = self._store.workers.slots(alive_within=alive_within)
        with_work = self._store.dispatch.models_with_work()
        for model in with_work:
            if slots.get(model):
                _apart(f"ringing for {model}", partial(self._ring, model, slots[model]))
        for model in self._store.workers.idle(alive_within=alive_within):
            if model not in with_work and (shard := self._store.splits.ask(model)):
                log.info("split asked for", model=model, shard=shard)

    def _ring(self, model: str, slots: int) -> None:
        """Ring for a few shards for each slot, counting what waits in the broker already.

        A shard is rung for again after a while; while workers are busy the queue must not grow
        by repetitions.
        """
        try:
            limit = DOORBELLS_PER_SLOT * slots - self._publisher.waiting(model)
        except BrokerUnavailable as error:
            self._say_silent(model, error.message)
            return
        if limit <= 0:
            return
        chosen = self._store.dispatch.take(
            model, limit=limit, redispatch_after=self._settings.redispatch_after
        )
        reach("dispatch.taken")
        missed = self._publisher.publish(model, chosen)
        reach("dispatch.rung")
        if missed:
            self._store.dispatch.unmark(missed)
            self._say_silent(model, f"{len(missed)} messages were not taken.")
        elif model in self._silent:
            self._silent.discard(model)
            log.info("broker back", model=model)

    def _say_silent(self, model: str, error: str) -> None:
        if model not in self._silent:
            self._silent.add(model)
            log.warning("broker unavailable", model=model, error=error)


def _say_garbage_left(job: str, error: Exception) -> None:
    log.warning("garbage left", job=job, error=describe(error))


def _apart(step: str, action: Callable[[], Result]) -> Result | None:
    """Return what `action` returns; where it fails, say so and let the rest of the tick go on.

    A database that is away ends the tick: nothing else of it would succeed.
    """
    try:
        return action()
    except Unavailable:
        raise
    except Exception:
        log.exception("step failed", step=step)
        return None

"""The coordinator: starts and expires jobs, reaps leases, dispatches shards, finalises jobs.

It also sends the events of webhooks, if hosts may receive them.

Any number of coordinators may run on PostgreSQL, because each statement is safe beside the same one
of another coordinator. An SQLite home has one coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Protocol, TypeVar

from batchgen.batches.checks import CheckManager
from batchgen.batches.file_records import FileRecord
from batchgen.database.identity import open_storage
from batchgen.errors import (
    BrokerUnavailable,
    Corrupt,
    DatabaseUnavailable,
    StoreMismatch,
    Unavailable,
)
from batchgen.failpoints import reach
from batchgen.jobs.store import Store
from batchgen.models.registry import Registry
from batchgen.repair.garbage import Collector
from batchgen.service.file_keeper import FileKeeper
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.counters import leases_reaped, shards_published, ticks
from batchgen.webhooks.deliveries import DeliveryManager
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.observing import observed, process_name
from batchgen_workers.periodic import PeriodicThread
from batchgen_workers.retry import await_database
from batchgen_workers.service.batch_checker import BatchChecker
from batchgen_workers.service.finaliser import Finaliser
from batchgen_workers.service.home_lock import locked_home
from batchgen_workers.service.queue_figures import QueueFigures
from batchgen_workers.service.webhook_sending import webhook_sender
from batchgen_workers.signals import on_ending

MESSAGES_PER_SLOT = 4  # in a model's queue, at most
MISSED_BEATS = 3  # heartbeats that a live worker may miss

log = get_logger(__name__)

Result = TypeVar("Result")


def run_coordinator(settings: Settings) -> None:
    """Coordinate until a signal to end comes, then close every connection.

    Waits for a database that is unavailable. Must be called in the main thread.

    Raises:
        BrokerUnavailable: none is configured. A broker that is down is waited for.
        SchemaMismatch, StoreMismatch, DatabaseDamaged: the database cannot be used.
        HomeLocked: another coordinator runs on this SQLite home.
    """
    # `batchgen run` coordinates as well, has no broker, and loads no Celery.
    from batchgen_workers.queue.app import create_app
    from batchgen_workers.queue.publisher import ShardPublisher

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
        figures = QueueFigures(store, alive_within=MISSED_BEATS * settings.heartbeat_interval)
        seen = observed(settings, Process.COORDINATOR, id=process_name(), figures=figures)
        models = Registry(settings.home / "models")
        coordinator = Coordinator(settings, store=store, publisher=publisher, models=models)
        with seen, alone, coordinator.running():
            log.info("coordinating", database=store.database.shown)
            stopping.event.wait()


class Publisher(Protocol):
    """Takes the ids of ready shards: a ShardPublisher or a LocalQueue."""

    def publish(self, model: str, shard_ids: Sequence[int]) -> list[int]:
        """Queue shards of a model in this order; return those that could not be queued."""

    def waiting(self, model: str) -> int:
        """Return the number of queued shards; raise BrokerUnavailable."""


class Coordinator:
    """Moves every job of one database towards its end, at each tick.

    run_coordinator(settings)                                     a process of its own
    Coordinator(settings, store=…, publisher=…).running()          beside a worker
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        publisher: Publisher,
        models: Registry | None = None,
    ) -> None:
        """Prepare to coordinate with an open store and publisher.

        With `models` it also attends to batches; `batchgen run` has none.
        """
        self._settings = settings
        self._publisher = publisher
        self._store = store
        storage = open_storage(store.database, settings.home)
        self.finaliser = Finaliser(store=self._store, storage=storage, ttl=settings.lease_ttl)
        self._collector = Collector(self._store, storage, min_age=settings.garbage_age)
        self._collector.on_trouble = _log_garbage_left
        #: Called after this coordinator has ended a job.
        self.on_ended: Callable[[], None] = lambda: None
        # Models whose shards could not be published at the last attempt.
        self._unpublished: set[str] = set()
        # A large dataset takes minutes to write; dispatch goes on meanwhile.
        self._threads = [
            PeriodicThread("coordinator", settings.coordinator_interval, self.tick),
            PeriodicThread("finaliser", settings.coordinator_interval, self.finalise),
        ]
        self._sender = webhook_sender(settings, store.database)
        if self._sender is not None:
            sending = PeriodicThread(
                "webhooks", settings.coordinator_interval, self._sender.send_due
            )
            self._threads.append(sending)
        # It is never nudged, because no job waits for it.
        self._garbage_thread = PeriodicThread("garbage", settings.garbage_interval, self.collect)
        self._files = FileKeeper(store, storage)
        self._files.on_trouble = _log_file_left
        self._checker: BatchChecker | None = None
        if models is not None:
            checks = CheckManager(store.database, seconds=settings.lease_ttl)
            token = self.finaliser.token
            self._checker = BatchChecker(rows=checks, storage=storage, models=models, token=token)
            interval = settings.coordinator_interval
            self._threads.append(PeriodicThread("batches", interval, self.attend_batches))

    def tick(self) -> None:
        """Start and expire jobs, reap dead leases, publish ready shards."""
        dispatch = self._store.dispatch
        started = _try_step("starting jobs", dispatch.start_due)
        expired = _try_step("expiring jobs", dispatch.expire_due)
        reaped = _try_step("reaping leases", self._store.leases.reap)
        leases_reaped.inc(reaped or 0)
        if started or expired or reaped:
            log.info("jobs moved", started=started, expired=expired, leases_reaped=reaped)
        self._dispatch()
        ticks.inc()

    def finalise(self) -> None:
        """Write the datasets that are due."""
        if self.finaliser.run_once():
            self.on_ended()

    def attend_batches(self) -> None:
        """Check new batches, count the lines of results, and delete files whose time is over."""
        if self._checker is not None and self._checker.run_once():
            self.nudge()
        counted = self._files.count_outputs()
        deleted = self._files.delete_expired()
        if counted or deleted:
            log.info("files attended", counted=counted, expired=deleted)

    def collect(self) -> None:
        """Remove files and records of webhooks that are not needed any more."""
        _try_step("sweeping deliveries", DeliveryManager(self._store.database).sweep)
        removed: list[int] = []
        try:
            if given_up := self._files.remove_given_up():
                log.info("results given up", jobs=given_up)
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
        """Coordinate for the block, on threads of its own."""
        for thread in (*self._threads, self._garbage_thread):
            thread.start()
        try:
            yield
        finally:
            self.finaliser.token.cancel()
            if self._sender is not None:
                self._sender.stop()
            for thread in (*self._threads, self._garbage_thread):
                thread.stop()

    def nudge(self) -> None:
        """Tick and finalise now, because this process has changed a job."""
        for thread in self._threads:
            thread.nudge()

    def _dispatch(self) -> None:
        alive_within = MISSED_BEATS * self._settings.heartbeat_interval
        slots = self._store.workers.slots(alive_within=alive_within)
        with_work = self._store.dispatch.models_with_work()
        for model in with_work:
            if slots.get(model):
                publish = partial(self._publish, model, slots[model])
                _try_step(f"publishing shards of {model}", publish)
        for model in self._store.workers.idle(alive_within=alive_within):
            if model not in with_work and (shard := self._store.splits.ask(model)):
                log.info("split asked for", model=model, shard=shard)

    def _publish(self, model: str, slots: int) -> None:
        """Publish ready shards until the queue holds MESSAGES_PER_SLOT for each slot.

        A shard that stays ready is published again after a while. Messages that wait already are
        counted, so that the queue does not grow by repetitions while workers are busy.
        """
        try:
            limit = MESSAGES_PER_SLOT * slots - self._publisher.waiting(model)
        except BrokerUnavailable as error:
            self._warn_once(model, error.message)
            return
        if limit <= 0:
            return
        chosen = self._store.dispatch.take(
            model, limit=limit, redispatch_after=self._settings.redispatch_after
        )
        reach("dispatch.taken")
        missed = self._publisher.publish(model, chosen)
        reach("dispatch.published")
        shards_published.labels(model).inc(len(chosen) - len(missed))
        if missed:
            self._store.dispatch.unmark(missed)
            self._warn_once(model, f"{len(missed)} messages could not be published.")
        elif model in self._unpublished:
            self._unpublished.discard(model)
            log.info("broker back", model=model)

    def _warn_once(self, model: str, error: str) -> None:
        if model not in self._unpublished:
            self._unpublished.add(model)
            log.warning("broker unavailable", model=model, error=error)


def _log_file_left(file: FileRecord, error: Corrupt) -> None:
    log.error("result file not counted", file=file.id, batch=file.batch_id, error=error.message)


def _log_garbage_left(job: str, error: Exception) -> None:
    log.warning("garbage left", job=job, error=describe(error))


def _try_step(step: str, action: Callable[[], Result]) -> Result | None:
    """Return the result of `action`; if it fails, log that, so that the tick goes on.

    Raises Unavailable, which ends the tick: its other steps would fail too.
    """
    try:
        return action()
    except Unavailable:
        raise
    except Exception:
        log.exception("step failed", step=step)
        return None

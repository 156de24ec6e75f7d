"""`batchgen run`: coordinator, queue and shard runner in one process, the engine in another.

coordinator threads ─► LocalQueue ─► consumer thread ─► runner ─► engine process
       ▲                                                 │
       └────────────── nudged when a shard ends ─────────┘        SQLite, one home, locked
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.states import JobState, ShardState
from batchgen.database.identity import open_storage
from batchgen.errors import DatabaseUnavailable, EngineFailed, InvalidParameter, ModelError
from batchgen.jobs.dead_leases import release_dead_leases
from batchgen.jobs.records.job_records import JobRecord, Progress
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.service.database import open_database
from batchgen.settings import Settings
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.logs import get_logger
from batchgen_workers.queue.local_queue import LocalQueue
from batchgen_workers.retry import retry_while_unavailable
from batchgen_workers.service.coordinator import Coordinator
from batchgen_workers.service.home_lock import locked_home
from batchgen_workers.shard.runner import ShardRunner
from batchgen_workers.signals import on_ending

ENGINE_LOG = "engine.log"  # in the home: the output of the engine process
POLL = 0.5  # seconds between two looks at the job, unless an event comes first
HEARTBEAT_INTERVAL = 1.0  # seconds, at most: a user watches the only worker

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalProgress:
    """The progress of a local run."""

    job: JobRecord
    progress: Progress
    # both None before the engine is ready
    engine: EngineInfo | None
    stats: EngineStats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """The outcome of a local run."""

    # In its final state, unless the run was interrupted.
    job: JobRecord
    # True if `stop` was cancelled first; finished rows are saved, and the next run continues.
    interrupted: bool
    # The last counters of the engine; None if no row was left to compute.
    stats: EngineStats | None
    # The time at which the first row went to the engine, seconds since the epoch.
    first_row_at: float | None


def run_local(
    settings: Settings,
    job: str,
    *,
    models: Path | None = None,
    on_progress: Callable[[LocalProgress], None] | None = None,
    stop: CancelToken | None = None,
    factory: str | None = None,
) -> LocalRun:
    """Compute a submitted job of an SQLite home to its end in this process, and return it.

    A signal to end (Ctrl-C) saves the finished rows and raises KeyboardInterrupt. The next run
    continues the job, even if the process of this one was killed.

    Args:
        settings: of the home that holds the job; a broker URL in them is not used.
        job: public id.
        models: folder of the registry; None takes the home's.
        on_progress: called on this thread about twice a second.
        stop: once it is cancelled, the finished rows are saved and the run returns as interrupted.
        factory: another engine (tests).

    Raises:
        HomeLocked: another process works on this home.
        InvalidParameter: the database is not SQLite, so that other processes may work on it.
        JobNotFound, UnknownModel, ModelError (changed since the submit), EngineFailed.
        KeyboardInterrupt: a signal came; the finished rows are saved.
    """
    settings = settings.model_copy(
        update={"heartbeat_interval": min(settings.heartbeat_interval, HEARTBEAT_INTERVAL)}
    )
    store = Store(open_database(settings))
    try:
        if not store.database.is_sqlite:
            raise InvalidParameter(
                f"A local run needs a home of its own on SQLite, not {store.database.shown}.",
                param="database_url",
            )
        with locked_home(settings.home):
            record = store.jobs.get(job)
            if record.state.ended:
                return LocalRun(job=record, interrupted=False, stats=None, first_row_at=None)
            released = release_dead_leases(store)
            log.info("dead leases released", shards=released, **record.log_context())
            model = _model_of(record, models or settings.home / "models")
            session = _Session(
                settings, store, record, model, factory=factory, token=stop or CancelToken()
            )
            return session.run(on_progress or _ignore)
    finally:
        store.close()


class _Session:
    """One local run of one job."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        job: JobRecord,
        model: ModelRecord,
        *,
        factory: str | None,
        token: CancelToken,
    ) -> None:
        self._store = store
        self._token = token
        self._job_id = job.id
        self._queue = LocalQueue()
        self._runner = ShardRunner(
            settings,
            model,
            store=store,
            storage=open_storage(store.database, settings.home),
            factory=factory,
            engine_log=settings.home / ENGINE_LOG,
        )
        self._coordinator = Coordinator(settings, store=store, publisher=self._queue)
        self._happened = threading.Event()
        self._signalled = False
        self._runner.on_finished = self._on_shard_finished
        self._runner.on_failure = self._happened.set
        self._coordinator.on_ended = self._happened.set

    def run(self, on_progress: Callable[[LocalProgress], None]) -> LocalRun:
        """Work until the job has ended or the token is cancelled."""

        def stop() -> None:
            self._signalled = True
            self._token.cancel()

        if self._store.jobs.by_id(self._job_id).paused:
            self._store.jobs.resume(self._job_id)
        try:
            with (
                on_ending(stop),
                self._token.calling(self._happened.set),
                self._working(),
                self._coordinator.running(),
            ):
                self._watch(on_progress)
        except EngineFailed:
            if not self._token.is_cancelled:
                raise
        finally:
            self._runner.close()
        if self._runner.failure is not None:
            raise self._runner.failure
        job = self._store.jobs.by_id(self._job_id)
        if self._signalled and not job.state.ended:
            raise KeyboardInterrupt
        return LocalRun(
            job=job,
            interrupted=not job.state.ended,
            stats=self._runner.stats,
            first_row_at=self._runner.supervisor.first_row_at,
        )

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Run an engine and a consumer for the block, if a row is left to compute."""
        if not self._has_rows_left():
            yield
            return
        self._runner.start(self._token)
        with self._queue.consumed(self._runner.run_shard):
            try:
                yield
            finally:
                self._runner.drain(0.0)

    def _has_rows_left(self) -> bool:
        state = self._store.jobs.by_id(self._job_id).state
        if state is JobState.RUNNING:
            return self._store.jobs.count_shards(self._job_id)[ShardState.READY] > 0
        return state is JobState.QUEUED

    def _watch(self, on_progress: Callable[[LocalProgress], None]) -> None:
        while not self._token.is_cancelled and self._runner.failure is None:
            try:
                job, progress = retry_while_unavailable(
                    self._look, what="a look at the job", token=self._token
                )
            except DatabaseUnavailable:  # the token was cancelled while the database was away
                return
            on_progress(
                LocalProgress(
                    job=job,
                    progress=progress,
                    engine=self._runner.supervisor.info,
                    stats=self._runner.stats,
                )
            )
            if job.state.ended:
                return
            self._happened.wait(POLL)
            self._happened.clear()

    def _look(self) -> tuple[JobRecord, Progress]:
        return self._store.jobs.by_id(self._job_id), self._store.jobs.progress(self._job_id)

    def _on_shard_finished(self) -> None:
        # only if the engine may run dry, or if this was the last shard
        if len(self._runner.shards) < self._runner.settings.shards_in_flight:
            self._coordinator.nudge()


def _model_of(job: JobRecord, models: Path) -> ModelRecord:
    model = Registry(models).get(job.model)
    if model.sha256 != job.model_sha256:
        raise ModelError(
            f"The model {job.model!r} has changed since the job was submitted. Import that "
            "version again, or submit the file anew."
        )
    return model


def _ignore(progress: LocalProgress) -> None:
    """Do nothing; it stands in for a missing `on_progress`."""

"""The worker process: a Celery consumer in the main thread, and a ShardRunner."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack

from batchgen.database.identity import open_storage
from batchgen.errors import DatabaseUnavailable, EngineFailed
from batchgen.jobs.store import Store
from batchgen.models.registry import Registry
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.engine_figures import EngineFigures
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.logs import get_logger
from batchgen_workers.observing import observed
from batchgen_workers.queue.app import create_app
from batchgen_workers.queue.consumer import Consumer
from batchgen_workers.retry import await_database
from batchgen_workers.shard.runner import ShardRunner
from batchgen_workers.signals import on_ending

log = get_logger(__name__)


def run_worker(settings: Settings, model: str, *, factory: str | None = None) -> None:
    """Compute shards of one model until a signal to end, then drain and return.

    Waits for a database or broker that is unavailable. Must be called in the main thread. `factory`
    names another engine (tests).

    Raises:
        UnknownModel, ModelError, InvalidParameter: the model, the device or tracing cannot be used.
        BrokerUnavailable: none is configured. A broker that is down is waited for.
        SchemaMismatch, StoreMismatch, DatabaseDamaged: the database cannot be used.
        EngineFailed: the engine did not start, or died again and again.
    """
    record = Registry(settings.home / "models").get(model)
    stopping = CancelToken()
    with ExitStack() as opened, on_ending(stopping.cancel):
        app = create_app(settings, model=model)
        opened.callback(app.close)
        try:
            store = Store(await_database(settings, stopping))
            opened.callback(store.close)
            storage = open_storage(store.database, settings.home)
            runner = ShardRunner(settings, record, store=store, storage=storage, factory=factory)
            # Outermost: a collector of traces that does not answer must not delay the sign-off.
            opened.enter_context(_observed(runner))
            opened.callback(runner.close)
            runner.start(stopping)
            _serve(runner, Consumer(app, runner), stopping)
        except (EngineFailed, DatabaseUnavailable):
            if not stopping.is_cancelled:  # else a signal to end came before it was ready
                raise
            return
    if runner.failure is not None:
        raise runner.failure


def _observed(runner: ShardRunner) -> AbstractContextManager[None]:
    return observed(
        runner.settings,
        Process.WORKER,
        id=runner.id,
        model=runner.model.name,
        figures=EngineFigures(runner.reading),
    )


def _serve(runner: ShardRunner, consumer: Consumer, stopping: CancelToken) -> None:
    """Consume until `stopping` is cancelled or the runner fails, then drain on another thread."""

    def drain() -> None:
        stopping.event.wait()
        consumer.stop()
        runner.drain(0.0 if runner.failure else runner.settings.drain_grace)

    runner.on_failure = stopping.cancel
    drainer = threading.Thread(target=drain, name="drainer")
    drainer.start()
    try:
        consumer.run()
    finally:
        stopping.cancel()
        drainer.join()

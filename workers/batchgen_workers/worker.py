"""The worker process: a Celery consumer in the main thread, a node beside it."""

from __future__ import annotations

import threading

from batchgen.errors import EngineFailed
from batchgen.jobs.identity import open_storage
from batchgen.jobs.store import Store
from batchgen.models.registry import Registry
from batchgen.service.database import open_database
from batchgen.settings import Settings
from batchgen_workers.app import create_app
from batchgen_workers.consumer import Consumer
from batchgen_workers.engine_client import ENGINE
from batchgen_workers.logs import get_logger
from batchgen_workers.node import Node
from batchgen_workers.signals import on_ending

log = get_logger(__name__)


def run_worker(settings: Settings, model: str, *, factory: str = ENGINE) -> None:
    """Compute shards of one model until a signal to end, then drain and return.

    Must be called in the main thread. `factory` names another engine (tests).

    Raises:
        UnknownModel, ModelError, InvalidParameter: the model or the device cannot be used.
        BrokerUnavailable: none is configured; one that is down is waited for.
        DatabaseUnavailable, SchemaMismatch, StoreMismatch: at the start; later absences are waited
            out.
        EngineFailed: the engine did not start, or died again and again.
    """
    record = Registry(settings.home / "models").get(model)
    app = create_app(settings, model=model)
    store = Store(open_database(settings))
    storage = open_storage(store.database, settings.home)
    node = Node(settings, record, store=store, storage=storage, factory=factory)
    stopping = threading.Event()
    try:
        storage.check()
        with on_ending(stopping.set):
            node.start(give_up=stopping.is_set)
            _serve(node, Consumer(app, node), stopping)
    except EngineFailed:
        if not stopping.is_set():  # else it was told to end while it loaded its model
            raise
    finally:
        node.close()
        app.close()
        store.close()
    if node.failure is not None:
        raise node.failure


def _serve(node: Node, consumer: Consumer, stopping: threading.Event) -> None:
    """Consume until `stopping` is set or the node fails; drain meanwhile in a thread."""

    def drain() -> None:
        stopping.wait()
        consumer.stop()
        node.drain(0.0 if node.failure else node.settings.drain_grace)

    node.on_failure = stopping.set
    drainer = threading.Thread(target=drain, name="drainer")
    drainer.start()
    try:
        consumer.run()
    finally:
        stopping.set()
        drainer.join()

"""Consumes a model's Celery queue: passes shard ids to a ShardRunner until it is stopped."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from celery.worker import state

from batchgen_workers.logs import get_logger
from batchgen_workers.queue.app import queue_of
from batchgen_workers.queue.tasks import register

if TYPE_CHECKING:
    from celery import Celery

    from batchgen_workers.shard.runner import ShardRunner

PAUSE_AFTER_REFUSAL = 2.0  # seconds until a broker that refused a connection is tried again

log = get_logger(__name__)


class Consumer:
    """Consumes the queue of a runner's model. A process can run one consumer at a time."""

    def __init__(self, app: Celery, runner: ShardRunner) -> None:
        self._app = app
        self._runner = runner
        self._model = runner.model.name
        self._stopping = threading.Event()
        _stop_celery(None)
        # Celery would log each message that is returned when the worker drains.
        logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
        register(app, runner.run_shard)
        app.set_default()  # Celery's pool threads look the task up in the default app
        self._controller = self._make_controller()

    def run(self) -> None:
        """Consume until `stop`; if the broker is unavailable, log that and retry without limit.

        Celery itself ends if the broker answers but refuses, for example because its memory is
        full. Then it is started again.
        """
        log.info("listening", model=self._model)
        self._controller.start()
        while not self._stopping.wait(PAUSE_AFTER_REFUSAL):
            log.warning("listening again", model=self._model)
            self._controller = self._make_controller()
            self._controller.start()

    def stop(self) -> None:
        """Let `run` return soon; called on another thread."""
        self._stopping.set()
        _stop_celery(os.EX_OK)
        hub = getattr(self._controller, "hub", None)
        if hub is not None:  # else the loop has not begun yet, and ends at its first turn
            hub.call_soon(_nothing)

    def _make_controller(self) -> Any:
        # Only the controller: Celery's worker program would change signal handlers and logging.
        return self._app.WorkController(
            hostname=f"batchgen-{os.getpid()}@{socket.gethostname()}",
            pool="threads",
            concurrency=self._runner.settings.shards_in_flight,
            queues=[queue_of(self._model).name],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )


def _stop_celery(status: int | None) -> None:
    # Celery's loop reads this global flag at each turn.
    vars(state)["should_stop"] = status


def _nothing() -> None:
    """Do nothing; the call wakes the event loop."""

"""The only Celery task: it runs the shard whose id a message carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from celery.exceptions import Reject

from batchgen_workers.logs import get_logger
from batchgen_workers.queue.envelope import RUN_SHARD
from batchgen_workers.shard.attempt import attempt
from batchgen_workers.shard.claim_gate import Draining

if TYPE_CHECKING:
    from celery import Celery

MAX_ID = 2**63 - 1  # the largest key SQL can hold

log = get_logger(__name__)


def register(app: Celery, run: Callable[[int], None]) -> None:
    """Register the task, which calls `run` with the shard id of each message."""

    # not shared: another app in this process has another runner
    @app.task(name=RUN_SHARD, shared=False)
    def run_shard(shard: object) -> None:
        # every client of the broker can put other values into the queue
        if not isinstance(shard, int) or isinstance(shard, bool) or not 0 < shard <= MAX_ID:
            log.warning("message ignored", reason="not a shard id")
            return
        try:
            attempt(run, shard)
        except Draining as error:
            # return the message to the queue at once; the consumer has stopped by now
            raise Reject(error.message, requeue=True) from None

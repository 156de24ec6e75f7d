"""Runs one shard whose id came from a queue, and logs what fails."""

from __future__ import annotations

from collections.abc import Callable

from batchgen.errors import DatabaseUnavailable
from batchgen_workers.logs import get_logger
from batchgen_workers.shard.claim_gate import Draining

log = get_logger(__name__)


def attempt(run: Callable[[int], None], shard: int) -> None:
    """Call `run` with a shard id, and log errors: the shard is dispatched again from SQL.

    Raises Draining if the worker takes no more shards.
    """
    try:
        run(shard)
    except Draining:
        raise
    except DatabaseUnavailable as error:
        # the coordinator publishes the shard again
        log.warning("shard not claimed", shard=shard, error=error.message)
    except Exception:  # Celery would log the message, which may quote a row
        log.exception("shard not begun", shard=shard)

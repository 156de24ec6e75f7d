"""One shard that was rung for, begun or not: the same whether a broker rang or this process."""

from __future__ import annotations

from collections.abc import Callable

from batchgen.errors import DatabaseUnavailable
from batchgen_workers.logs import get_logger
from batchgen_workers.shard.claim_gate import Draining

log = get_logger(__name__)


def attempt(run: Callable[[int], None], shard: int) -> None:
    """Call `run` with a shard; what goes wrong is logged, as the shard comes back through SQL.

    Raises Draining where the worker takes no more shards.
    """
    try:
        run(shard)
    except Draining:
        raise
    except DatabaseUnavailable as error:
        # the coordinator rings again
        log.warning("shard not claimed", shard=shard, error=error.message)
    except Exception:  # Celery would log what it says, which may quote a row
        log.exception("shard not begun", shard=shard)

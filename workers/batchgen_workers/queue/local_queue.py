"""The queue of `batchgen run`: it passes shard ids within one process, in place of a broker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from batchgen_workers.shard.attempt import attempt
from batchgen_workers.shard.claim_gate import Draining


class LocalQueue:
    """A queue of shard ids for one model, with the methods of `ShardPublisher` and a consumer."""

    def __init__(self) -> None:
        self._ids: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def publish(self, model: str, shard_ids: Sequence[int]) -> list[int]:
        """Queue shards in this order; return those that failed, which are none."""
        for shard_id in shard_ids:
            self._ids.put(shard_id)
        return []

    def waiting(self, model: str) -> int:
        """Return the number of queued shards."""
        return self._ids.qsize()

    @contextmanager
    def consumed(self, run: Callable[[int], None]) -> Iterator[None]:
        """Call `run` with one shard after the other, on a thread that lives for the block."""
        thread = threading.Thread(target=self._consume, args=(run,), name="consumer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ids.put(None)
            thread.join()

    def _consume(self, run: Callable[[int], None]) -> None:
        while (shard_id := self._ids.get()) is not None:
            try:
                attempt(run, shard_id)
            except Draining:
                return

"""The set of shards that this worker has in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from batchgen_workers.shard.shard import Ending, Shard


class Shards:
    """A set of shards for many threads: they add to it, iterate over it and wait until it is empty.

    A shard stays in it from its claim until it is finished.
    """

    def __init__(self) -> None:
        # A dict, because it keeps the order. Keys are compared by identity: a split changes the id.
        self._shards: dict[Shard, None] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[Shard]:
        with self._changed:
            return iter(list(self._shards))

    def add(self, shard: Shard) -> None:
        """Add a claimed shard."""
        with self._changed:
            self._shards[shard] = None

    def remove(self, shard: Shard) -> None:
        """Remove a finished shard; a new claim of the same shard is another object and stays."""
        with self._changed:
            self._shards.pop(shard, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Let no shard submit more rows."""
        for shard in self:
            shard.close()

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """End every shard early."""
        for shard in self:
            shard.end(ending, reason)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until every shard is finished; return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._shards, timeout)

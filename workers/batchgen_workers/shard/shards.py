"""The shards this worker has in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from batchgen_workers.shard.shard import Ending, Shard


class Shards:
    """A set of shards that threads add to, walk through and wait on."""

    def __init__(self) -> None:
        # A dict for its order. By identity: a split changes a shard's id.
        self._shards: dict[Shard, None] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[Shard]:
        with self._changed:
            return iter(list(self._shards))

    def add(self, shard: Shard) -> None:
        """Take up a claimed shard."""
        with self._changed:
            self._shards[shard] = None

    def remove(self, shard: Shard) -> None:
        """Forget a settled shard; the same one may have been claimed anew meanwhile."""
        with self._changed:
            self._shards.pop(shard, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Let every shard take no more rows from its input."""
        for shard in self:
            shard.close()

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """End every shard early."""
        for shard in self:
            shard.end(ending, reason)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until every shard is settled; return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._shards, timeout)

"""A fixed number of threads that checkpoint and finish the shards in flight when that is due.

shard.on_due ─► queue ─► attend ─► finished? ─ yes ─► on_finished
                  ▲                     └───── no ──► due again meanwhile? back into the queue
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from enum import Enum, auto

from batchgen_workers.shard.shard import Shard

THREADS = 8  # shards that are written or committed at the same time


class _State(Enum):
    IDLE = auto()  #: The shard is not due.
    QUEUED = auto()  #: The shard is in the queue, or a thread attends to it.
    DUE_AGAIN = auto()  #: It is QUEUED and has become due once more.


class FinisherPool:
    """Calls `attend` for shards that are due, for each shard on one thread at a time."""

    def __init__(
        self,
        attend: Callable[[Shard], bool],
        *,
        on_finished: Callable[[Shard], None],
        threads: int = THREADS,
    ) -> None:
        """Prepare the pool.

        Args:
            attend: does the work that is due for a shard; returns True once the shard is finished.
                It must not raise.
            on_finished: called once for each shard, after it is finished.
            threads: number of threads.
        """
        self._attend = attend
        self._on_finished = on_finished
        self._states: dict[Shard, _State] = {}
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"finisher-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def take(self, shard: Shard) -> None:
        """Add a shard: attend to it whenever it is due, until it is finished."""
        with self._lock:
            self._states[shard] = _State.IDLE
        shard.on_due = lambda: self.put(shard)

    def put(self, shard: Shard) -> None:
        """Queue a shard; do nothing for one that is finished or was never taken."""
        with self._lock:
            state = self._states.get(shard)
            if state is _State.IDLE:
                self._states[shard] = _State.QUEUED
                self._queue.put(shard)
            elif state is _State.QUEUED:
                self._states[shard] = _State.DUE_AGAIN

    def stop(self) -> None:
        """End each thread after the shards that are queued now; do not wait for that."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (shard := self._queue.get()) is not None:
            with self._lock:
                self._states[shard] = _State.QUEUED
            finished = self._attend(shard)
            with self._lock:
                if finished:
                    del self._states[shard]
                elif self._states[shard] is _State.DUE_AGAIN:
                    self._queue.put(shard)
                else:
                    self._states[shard] = _State.IDLE
            if finished:
                self._on_finished(shard)

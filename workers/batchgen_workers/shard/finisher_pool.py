"""A few threads that attend to shards as they become due, however many shards are in flight.

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
    IDLE = auto()  #: Nothing is to be done for it.
    QUEUED = auto()  #: It is in the queue, or a thread attends to it.
    DUE_AGAIN = auto()  #: A thread attends to it, and something has happened since.


class FinisherPool:
    """Attends to each shard on one thread at a time."""

    def __init__(
        self,
        attend: Callable[[Shard], bool],
        *,
        on_finished: Callable[[Shard], None],
        threads: int = THREADS,
    ) -> None:
        """Prepare the pool.

        Args:
            attend: does for a shard what is due, and returns whether it is finished. It must not
                raise.
            on_finished: called once for each shard, after that.
            threads: number of them.
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
        """Attend to a shard whenever it is due, until it is finished."""
        with self._lock:
            self._states[shard] = _State.IDLE
        shard.on_due = lambda: self.put(shard)

    def put(self, shard: Shard) -> None:
        """Attend to a shard soon; one that is finished, or was never taken, is left alone."""
        with self._lock:
            state = self._states.get(shard)
            if state is _State.IDLE:
                self._states[shard] = _State.QUEUED
                self._queue.put(shard)
            elif state is _State.QUEUED:
                self._states[shard] = _State.DUE_AGAIN

    def stop(self) -> None:
        """Let each thread end once it has nothing in hand; what is queued is left."""
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

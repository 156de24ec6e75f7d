"""Keeps one engine child alive: starts it, watches it, starts another one when it dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from batchgen.engine.stats import EngineInfo, EngineStats
from batchgen.errors import BatchgenError, EngineFailed
from batchgen.io.rows import GenerationRequest
from batchgen_workers.engine_client import EngineClient, OnResult
from batchgen_workers.logs import get_logger

MAX_DEATHS = 3  # in a row without a single answer in between
PAUSE_AFTER_DEATH = 1.0  # seconds; a GPU frees the dead child's memory meanwhile

log = get_logger(__name__)


class EngineHost:
    """The engine of one worker across the deaths of its child.

    host = EngineHost(lambda: EngineClient(config))
    host.start(give_up=stop.is_set)
    host.submit(requests, on_result, give_up=…)
    """

    def __init__(self, spawn: Callable[[], EngineClient]) -> None:
        self._spawn = spawn
        #: Called on every death with the keys that were in the engine, before a new child starts.
        self.on_death: Callable[[list[int], BatchgenError], None] = lambda keys, error: None
        #: Called when rows ended, when a new child is ready, and when there will be no more.
        self.on_change: Callable[[], None] = lambda: None
        #: Set once the engine died too often; why the worker has to end.
        self.failure: BatchgenError | None = None
        self._client: EngineClient | None = None
        self._first_row_at: float | None = None
        self._deaths = 0
        self._closing = threading.Event()
        self._restarter: threading.Thread | None = None

    @property
    def is_ready(self) -> bool:
        """Whether rows can be submitted now."""
        client = self._client
        return client is not None and client.info is not None and not client.is_dead

    @property
    def info(self) -> EngineInfo | None:
        """What the present child settled on."""
        return self._client.info if self._client else None

    @property
    def stats(self) -> EngineStats | None:
        """The present child's last counters."""
        return self._client.stats if self._client else None

    @property
    def outstanding(self) -> int:
        """Rows in the engine."""
        return self._client.outstanding if self._client else 0

    @property
    def first_row_at(self) -> float | None:
        """When the first row of all was sent, seconds since the epoch."""
        return self._first_row_at or (self._client.first_row_at if self._client else None)

    def start(self, *, give_up: Callable[[], bool] = lambda: False) -> EngineInfo:
        """Start the first child; raise its error, or EngineFailed, where it cannot run."""
        return self._start(lambda: give_up() or self._closing.is_set())

    def submit(
        self,
        requests: Sequence[GenerationRequest],
        on_result: OnResult,
        *,
        give_up: Callable[[], bool],
    ) -> bool:
        """Hand rows to the present child; as `EngineClient.submit`."""
        if self._client is None:
            raise EngineFailed("The engine is not running.")
        return self._client.submit(requests, on_result, give_up=give_up)

    def abort(self, keys: Iterable[int]) -> None:
        """Take rows back, wherever they are."""
        if self._client is not None:
            self._client.abort(keys)

    def wake(self) -> None:
        """Let waiting submitters look at their `give_up` again."""
        if self._client is not None:
            self._client.credits.wake()

    def check_stalled(self, timeout: float) -> None:
        """End a child that has rows but has not moved for `timeout` seconds."""
        client = self._client
        if client is not None and (stalled := client.stalled_for()) > timeout:
            log.error("engine stalled", seconds=round(stalled), rows=client.outstanding)
            client.kill()

    def close(self) -> None:
        """End the child for good."""
        self._closing.set()
        if self._restarter is not None:
            self._restarter.join()
        if self._client is not None:
            self._client.close()

    def _start(self, give_up: Callable[[], bool]) -> EngineInfo:
        client = self._client = self._spawn()
        client.on_death = lambda keys: self._died(client, keys)
        client.on_answers = lambda: self.on_change()
        return client.start(give_up=give_up)

    def _died(self, client: EngineClient, keys: list[int]) -> None:
        if self._closing.is_set() or client.info is None:
            return  # who starts a child that never gets ready learns it there
        self._first_row_at = self.first_row_at
        self._deaths = 1 if client.answers else self._deaths + 1
        error = client.failure or EngineFailed()
        log.error("engine died", error=error.message, rows=len(keys), deaths=self._deaths)
        self.on_death(keys, error)
        self._restarter = threading.Thread(
            target=self._restart, args=(error,), name="engine-restarter", daemon=True
        )
        self._restarter.start()

    def _restart(self, error: BatchgenError) -> None:
        while self._deaths < MAX_DEATHS:
            if self._closing.wait(PAUSE_AFTER_DEATH):
                return
            try:
                self._start(self._closing.is_set)
            except BatchgenError as failure:
                error = failure
                self._deaths += 1
                log.error("engine not restarted", error=error.message, deaths=self._deaths)
            else:
                log.info("engine restarted")
                self.on_change()
                return
        self.failure = EngineFailed(
            f"The engine died {self._deaths} times in a row without an answer. {error.message} "
            "See the log, and `batchgen doctor`."
        )
        self.on_change()

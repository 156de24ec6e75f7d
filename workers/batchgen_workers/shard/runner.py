"""Runs shards: owns the engine, the shards in flight, their leases and the worker's heartbeat.

run_shard(id) ─► ClaimGate ─► claim ─► Feeder ─► EngineSupervisor ─► engine process
                         ShardFinisher ◄─ FinisherPool ◄─ shard ◄── results ──┘
LeaseKeeper renews every lease · the heartbeat describes the worker in SQL
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
from structlog.contextvars import bound_contextvars

from batchgen import __version__
from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.dataset.result_table import to_table
from batchgen.endpoints.config import EndpointConfig
from batchgen.engine.config import EngineConfig
from batchgen.errors import (
    BatchgenError,
    DatabaseUnavailable,
    Fenced,
    SchemaMismatch,
    StoreMismatch,
)
from batchgen.failpoints import reach
from batchgen.jobs.records.job_records import Lease, WorkerRecord
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.settings import Settings
from batchgen.storage.storage import Storage
from batchgen.telemetry.engine_figures import EngineReading
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.process import ENDPOINT_ENGINE, ENGINE, EngineProcess
from batchgen_workers.engine_process.supervisor import EngineSupervisor
from batchgen_workers.logs import get_logger
from batchgen_workers.periodic import PeriodicThread
from batchgen_workers.retry import retry_while_unavailable
from batchgen_workers.shard.claim_gate import ClaimGate, Draining
from batchgen_workers.shard.feeder import Feeder
from batchgen_workers.shard.finisher import ShardFinisher
from batchgen_workers.shard.finisher_pool import FinisherPool
from batchgen_workers.shard.lease_keeper import LeaseKeeper
from batchgen_workers.shard.longest_first import tail_length
from batchgen_workers.shard.shard import Ending, ResultLimits, Shard
from batchgen_workers.shard.shards import Shards

SHARDS_PER_SLOT = 8  # shards in flight for each slot, most of them with their last rows computed
DISK_PAUSE = 15.0  # seconds without a claim after a file could not be written
CHECKPOINT_POLL = 1.0  # seconds between two searches for checkpoints that are due, at most
FINISH_LIMIT = 10.0  # seconds to save and release every shard at the end
OTHER_MODEL_DELAY = 60.0  # seconds until a shard that needs another model is dispatched again

log = get_logger(__name__)


class ShardRunner:
    """Computes the shards whose ids it is given; any thread may call `run_shard`."""

    def __init__(
        self,
        settings: Settings,
        model: ModelRecord,
        *,
        store: Store,
        storage: Storage,
        factory: str | None = None,
        engine_log: Path | None = None,
        limits: ResultLimits | None = None,
    ) -> None:
        """Prepare a runner for one model; `EngineProcess` gets `factory` and `engine_log`.

        None takes the engine of the model: our own, or that of its endpoint. Raises
        EndpointNotAllowed.
        """
        self.settings = settings
        self.limits = limits or ResultLimits()
        self.model = model
        self.store = store
        self._storage = storage
        #: host/pid/uuid, the worker's id in SQL.
        self.id = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        config = _config_of(settings, model)
        self.supervisor = _supervisor_of(config, factory=factory, log_file=engine_log)
        self.shards = Shards()
        self.gate = ClaimGate(self._has_room)
        #: Called after a shard was finished on this worker.
        self.on_finished: Callable[[], None] = lambda: None
        #: Called when the worker cannot go on; see `failure`.
        self.on_failure: Callable[[], None] = lambda: None
        self._info: EngineInfo | None = None
        self._mismatch: SchemaMismatch | None = None
        self._token = CancelToken()
        self._feeder = Feeder(
            store=store,
            storage=storage,
            supervisor=self.supervisor,
            token=self._token,
            tail=tail_length(config.max_num_seqs),
            lease_ttl=settings.lease_ttl,
        )
        self._finisher = ShardFinisher(
            store=store,
            storage=storage,
            supervisor=self.supervisor,
            checkpoint_interval=settings.checkpoint_interval,
            token=self._token,
            on_disk_trouble=lambda: self.gate.pause(DISK_PAUSE),
        )
        self._keeper = self._make_keeper()
        self._pool = FinisherPool(self._finisher.attend, on_finished=self._shard_finished)
        checkpoint_poll = min(CHECKPOINT_POLL, settings.checkpoint_interval / 2)
        self._threads = [
            PeriodicThread("lease-keeper", self._keeper.interval, self._renew_leases),
            PeriodicThread("heartbeat", settings.heartbeat_interval, self._send_heartbeat),
            PeriodicThread("checkpoints", checkpoint_poll, self._queue_checkpoints),
        ]

    def _make_keeper(self) -> LeaseKeeper:
        return LeaseKeeper(
            store=self.store,
            shards=self.shards,
            ttl=self.settings.lease_ttl,
            stall_timeout=self.settings.stall_timeout,
            tokens_running=self.supervisor.tokens_running,
        )

    @property
    def failure(self) -> BatchgenError | None:
        """The error that ends this worker; None while it can go on."""
        return self._mismatch or self.supervisor.failure

    @property
    def stats(self) -> EngineStats | None:
        """The last counters of the engine."""
        return self.supervisor.stats

    def reading(self) -> EngineReading:
        """Return what metrics show of the engine now."""
        return EngineReading(
            stats=self.stats, running=self.supervisor.answering, shards=len(self.shards)
        )

    def start(self, token: CancelToken) -> None:
        """Load the model and register this worker in SQL.

        Raises the engine's error, or EngineFailed if `token` was cancelled first.
        """
        self.supervisor.on_death = self._engine_died
        self.supervisor.on_change = self._engine_changed
        # Arrow loads modules at first use: do that now, not when the first shard ends.
        threading.Thread(target=to_table, args=([],), name="warm-up", daemon=True).start()
        info = self.supervisor.start(token)
        log.info("engine ready", **msgspec.to_builtins(info))
        if info.is_slow:
            log.warning("engine is slow", kernels=info.kernels, reason=info.kernels_reason)
        try:
            self._send_heartbeat()
        except DatabaseUnavailable as error:  # the heartbeat thread sends it later
            log.warning("worker not signed on", error=error.message)
        self._pool.start()
        for thread in self._threads:
            thread.start()

    def run_shard(self, shard_id: int) -> None:
        """Claim a shard, if it is still free, and submit its rows to the engine.

        Returns once the last row is submitted; other threads wait for the results. Raises Draining
        if the worker takes no more shards.
        """
        with self.gate.turn(), bound_contextvars(shard=shard_id):
            self._check_schema()
            if not self._is_store_present():
                return
            lease = self._claim(shard_id)
            if lease is None:
                log.debug("shard not free", shard=shard_id)
                return
            reach("shard.claimed")
            shard = Shard(lease, limits=self.limits)
            self.shards.add(shard)
            if self.gate.is_closed:  # `drain` may have closed the other shards already
                shard.close()
            log.info(
                "shard claimed", rows=lease.n_rows, attempt=lease.attempts, **lease.log_context()
            )
            self._pool.take(shard)
            self._feeder.feed(shard)
            reach("shard.fed")

    def drain(self, grace: float) -> None:
        """Submit no more rows, wait `grace` seconds for those in the engine, save and release."""
        self.gate.close()
        self.shards.close()
        log.info("draining", shards=len(self.shards), grace=grace)
        if not self.shards.wait_empty(grace):
            self.shards.end(Ending.HELD)
        if not self.shards.wait_empty(FINISH_LIMIT):
            self._token.cancel()
            self.shards.wait_empty(FINISH_LIMIT)

    def close(self) -> None:
        """End the engine and the threads, and sign this worker off in SQL."""
        self.gate.close()
        self._token.cancel()
        self.shards.end(Ending.HELD)
        for thread in self._threads:
            thread.stop()
        self.supervisor.close()
        self.shards.wait_empty(FINISH_LIMIT)
        self._pool.stop()
        try:
            self.store.workers.gone(self.id)
        except DatabaseUnavailable as error:
            log.warning("worker not signed off", error=error.message)

    def _check_schema(self) -> None:
        """Check that the schema is still the same; if it was upgraded, this worker must end."""
        try:
            retry_while_unavailable(
                self.store.database.check_schema, what="a look at the schema", token=self._token
            )
        except SchemaMismatch as error:
            self._mismatch = error
            self.gate.close()
            self.on_failure()
            raise Draining from error

    def _is_store_present(self) -> bool:
        """Return whether the home is the store of the database; if not, pause the claims.

        The shard stays ready, and the coordinator publishes it again.
        """
        try:
            retry_while_unavailable(
                self._storage.check, what="a look at the store", token=self._token
            )
        except (StoreMismatch, OSError) as error:
            log.error("store not seen", error=str(error))
            self.gate.pause(DISK_PAUSE)
            return False
        return True

    def _claim(self, shard_id: int) -> Lease | None:
        lease = retry_while_unavailable(
            lambda: self.store.leases.claim(shard_id, owner=self.id, ttl=self.settings.lease_ttl),
            what="a claim",
            token=self._token,
        )
        if lease is None or lease.model_sha256 == self.model.sha256:
            return lease
        log.error("model differs from the job's", **lease.log_context(), **self.model.log_context())
        try:
            reason = f"The worker's model {self.model.name} is not the one the job was made for."
            self.store.leases.release(lease, error=reason, delay=OTHER_MODEL_DELAY)
        except Fenced:
            log.warning("shard fenced", **lease.log_context())
        return None

    def _shard_finished(self, shard: Shard) -> None:
        self.shards.remove(shard)
        self.gate.look_again()
        self.on_finished()

    def _queue_checkpoints(self) -> None:
        for shard in self.shards:
            if self._finisher.is_checkpoint_due(shard):
                self._pool.put(shard)

    def _has_room(self) -> bool:
        """Return whether the rows of another shard would be computed now instead of waiting."""
        return (
            self.supervisor.wants_rows
            and len(self.shards) < SHARDS_PER_SLOT * self.settings.shards_in_flight
        )

    def _renew_leases(self) -> None:
        self.supervisor.check_stalled(self.settings.stall_timeout)
        self._keeper.tick()

    def _send_heartbeat(self) -> None:
        # while a new engine process loads, the configuration of the last one is sent
        info = self._info = self.supervisor.info or self._info
        assert info is not None
        self.store.workers.heartbeat(
            WorkerRecord(
                id=self.id,
                model=self.model.name,
                slots=self.settings.shards_in_flight,
                device=info.device,
                pool_blocks=info.num_blocks,
                version=__version__,
                stats={
                    **msgspec.to_builtins(self.stats or EngineStats()),
                    "kernels": info.kernels,
                    "kernels_reason": info.kernels_reason,
                    "shards": len(self.shards),
                    "rows": self.supervisor.outstanding,
                },
            )
        )

    def _engine_died(self, owners: list[object], error: BatchgenError) -> None:
        for shard in owners:
            assert isinstance(shard, Shard)
            shard.count_death()

    def _engine_changed(self) -> None:
        self.gate.look_again()
        if self.failure is not None:
            self.shards.end(Ending.ENGINE_DIED, self.failure.message)
            self.on_failure()


def _config_of(settings: Settings, model: ModelRecord) -> EngineConfig:
    config = EngineConfig.from_settings(settings.engine, path=model.path, name=model.name)
    if model.endpoint is None:
        return config
    return config.at_endpoint(EndpointConfig.from_settings(model.endpoint, settings))


def _supervisor_of(
    config: EngineConfig, *, factory: str | None, log_file: Path | None
) -> EngineSupervisor:
    engine = factory or (ENDPOINT_ENGINE if config.endpoint else ENGINE)
    return EngineSupervisor(
        lambda halvings: EngineProcess(config.halved(halvings), factory=engine, log_file=log_file),
        max_num_seqs=config.max_num_seqs,
    )

"""Saves the results of a shard: checkpoints while it is computed, then one part and one commit.

COMPLETE ─► part ─► commit        STOPPED ─► error rows for the rest ─► part ─► commit
HELD, DRAINED, ENGINE_DIED, BROKEN, FAILED ─► checkpoint ─► release        FENCED ─► nothing

A failure by a full disk or an unavailable database is retried without limit. Any other failure is
counted, over all claims of the shard: after MAX_FAILURES its job fails with the last reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from structlog.contextvars import bound_contextvars

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics
from batchgen.core.rows import ResultRow
from batchgen.core.states import StopReason
from batchgen.dataset.parts import PartFooter, PartInfo, part_key, read_results, write_part
from batchgen.errors import (
    Corrupt,
    DatabaseUnavailable,
    Fenced,
    NotAllowed,
    StoreMismatch,
)
from batchgen.failpoints import reach
from batchgen.inputs.stored_input import input_key
from batchgen.jobs.records.job_records import Lease
from batchgen.jobs.store import Store
from batchgen.storage.storage import Storage, not_there
from batchgen.telemetry.counters import parquet_rows_written, shards_finished
from batchgen.telemetry.tracing import Stage, record_stage
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.supervisor import EngineSupervisor
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.retry import retry_while_unavailable
from batchgen_workers.shard.answers import STOPPED, refused
from batchgen_workers.shard.failure_limit import MAX_FAILURES, may_pass
from batchgen_workers.shard.feeder import rows_of
from batchgen_workers.shard.shard import Ending, Saved, Shard, ShardResults

BROKEN_DELAY = 10.0  # seconds before a shard can be claimed again after a failure

log = get_logger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFinisher:
    """Writes checkpoints and parts of shards, and commits or releases their leases."""

    store: Store
    storage: Storage
    supervisor: EngineSupervisor
    # Seconds between checkpoints of one shard.
    checkpoint_interval: float
    # Once it is cancelled, an unavailable database is not waited for any longer.
    token: CancelToken
    # Called when a file cannot be written.
    on_disk_trouble: Callable[[], None]

    def attend(self, shard: Shard) -> bool:
        """Checkpoint or finish a shard if that is due; return True once it is finished.

        Never raises. Rows that could not be saved are computed again under the next claim.
        """
        with bound_contextvars(**shard.lease.log_context()):
            ending = shard.ending
            if ending is None:
                self._save(shard)
                return False
            shard.forget_engine_rows()
            self.supervisor.take_back(shard)
            self._finish_or_return(shard, ending)
            return True

    def _save(self, shard: Shard) -> None:
        try:
            if shard.is_heavy or self.is_checkpoint_due(shard):
                self._try_checkpoint(shard)
        except Exception as error:
            log.exception("checkpoint failed")
            shard.end(Ending.FAILED, describe(error))

    def is_checkpoint_due(self, shard: Shard) -> bool:
        """Return whether new results of a shard have waited for `checkpoint_interval`."""
        waited = time.monotonic() - shard.saved_at
        return shard.rows_done > shard.saved_rows and waited >= self.checkpoint_interval

    def _finish_or_return(self, shard: Shard, ending: Ending) -> None:
        """Finish a shard; if that fails, release it or fail its job."""
        outcome = Ending.FAILED
        try:
            self._finish(shard, ending)
            outcome = ending
            log.info("shard finished", ending=ending, rows=shard.rows_done)
        except Fenced:
            outcome = Ending.FENCED
            log.warning("shard fenced", rows=shard.rows_done)
        except DatabaseUnavailable as error:
            log.warning("shard left to its lease", error=error.message)
        except Exception as error:
            log.exception("shard not finished")
            if may_pass(error):
                self._return_uncounted(shard, describe(error))
            else:
                self._return_after(shard, describe(error))
        finally:
            _note_end(shard, outcome)

    def _finish(self, shard: Shard, ending: Ending) -> None:
        match ending:
            case Ending.COMPLETE:
                self._commit(shard)
            case Ending.STOPPED:
                self._fill(shard)
                self._commit(shard)
            case Ending.UNREADABLE:
                self._fail_job(shard, shard.reason or "The input cannot be read.")
            case Ending.FENCED:
                raise Fenced
            case Ending.FAILED:
                self._try_checkpoint(shard)
                self._return_after(shard, shard.reason or "It failed.")
            case _:
                self._try_checkpoint(shard)
                reach("shard.releasing")
                delay = BROKEN_DELAY if ending is Ending.BROKEN else 0.0
                self._release(shard, shard.reason, delay=delay)

    def _commit(self, shard: Shard) -> None:
        try:
            part = self._write(shard, "part", shard.results())
        except (OSError, StoreMismatch) as error:
            if not may_pass(error):
                raise
            self._on_disk_trouble(shard, error)
            self._release(shard, f"The part could not be written: {error}")
            return
        reach("part.committing")
        try:
            self._retry(lambda: self.store.leases.commit(shard.lease, part), "a commit")
        except Fenced:
            self.storage.delete(part.path)
            raise
        reach("part.committed")
        parquet_rows_written.labels("part").inc(part.n_rows)
        if shard.checkpoint is not None:
            self.storage.delete(shard.checkpoint.path)

    def _try_checkpoint(self, shard: Shard) -> None:
        """Write a checkpoint if there are new results; log a failure of the disk or the database.

        If that fails while memory has no room for more results, end the shard. It is claimed again
        later.
        """
        if shard.rows_done <= shard.saved_rows:
            return
        shard.saved_at = time.monotonic()
        try:
            self._checkpoint(shard)
        except (OSError, Corrupt, StoreMismatch) as error:
            self._on_disk_trouble(shard, error)
            lost = isinstance(error, Corrupt) and shard.rests_on_checkpoint
            if shard.is_heavy or lost:
                shard.end(Ending.FAILED if lost else Ending.BROKEN, str(error))
        except DatabaseUnavailable as error:
            log.warning("checkpoint missed", error=error.message)
            if shard.is_heavy:
                shard.end(Ending.BROKEN, error.message)
        except Fenced:
            shard.end(Ending.FENCED)

    def _checkpoint(self, shard: Shard) -> None:
        try:
            with shard.leasing:
                results = shard.results()
                saved = self._write(shard, "ckpt", results)
                reach("checkpoint.registering")
                former = self.store.leases.checkpoint(shard.lease, saved)
        except Fenced:
            self.storage.delete(saved.path)
            raise
        reach("checkpoint.registered")
        shard.checkpoint = Saved(path=saved.path, sha256=saved.sha256)
        shard.saved_rows = saved.n_rows
        if shard.is_heavy:
            shard.shelve(results[0])
        if former is not None:
            self.storage.delete(former)

    def _fill(self, shard: Shard) -> None:
        """Give every row without a result the error of its job's stop reason."""
        lease = shard.lease
        job = self._retry(lambda: self.store.jobs.by_id(lease.job_id), "reading a job")
        error = STOPPED[job.stop_reason or StopReason.CANCEL]
        shard.keep(
            refused(row, error, job=lease.job_public_id, model=lease.model, attempt=lease.attempts)
            for row in rows_of(self.storage, lease)
            if not shard.has(row.row)
        )

    def _fail_job(self, shard: Shard, reason: str) -> None:
        try:
            self.storage.check("inputs")
        except StoreMismatch as error:  # in another store every input is missing
            self._on_disk_trouble(shard, error)
            self._release(shard, error.message, delay=BROKEN_DELAY)
            return
        try:
            self._retry(lambda: self.store.jobs.fail(shard.lease.job_id, reason), "failing a job")
        except NotAllowed:
            log.info("job has ended already")
        self._release(shard, reason)

    def _release(
        self, shard: Shard, error: str | None, *, delay: float = 0.0, failed: bool = False
    ) -> None:
        self._retry(
            lambda: self.store.leases.release(shard.lease, error=error, delay=delay, failed=failed),
            "a release",
        )

    def _return_uncounted(self, shard: Shard, reason: str) -> None:
        try:
            self._release(shard, reason, delay=BROKEN_DELAY)
        except (Fenced, DatabaseUnavailable) as lost:
            log.warning("shard left to its lease", error=lost.message)

    def _return_after(self, shard: Shard, reason: str) -> None:
        """Release a shard after a failure, or fail its job after the last allowed one."""
        failures = shard.lease.failures + 1
        try:
            if failures >= MAX_FAILURES:
                rows = f"rows {shard.lease.pos_start} to {shard.lease.pos_end - 1}"
                self._fail_job(shard, f"{rows} failed {failures} times, at last with: {reason}")
            else:
                self._release(shard, reason, delay=BROKEN_DELAY, failed=True)
        except (Fenced, DatabaseUnavailable) as lost:
            log.warning("shard left to its lease", error=lost.message)

    def _write(
        self, shard: Shard, kind: Literal["part", "ckpt"], results: ShardResults
    ) -> PartInfo:
        """Write results, together with those that only the checkpoint holds."""
        lease = shard.lease
        if self.storage.size(input_key(lease.input_sha256)) is None:
            # the disk is not mounted: the file would be written below its mount point
            raise not_there(self.storage.path("inputs"))
        key = part_key(lease.job_public_id, lease.seq, lease.epoch, kind)
        rows, kv, numerics = results
        footer = footer_of(lease, kv, numerics)
        return write_part(self.storage, key, rows, footer, saved=self._shelved_rows(shard))

    def _shelved_rows(self, shard: Shard) -> Iterator[ResultRow]:
        if shard.checkpoint is None or not shard.rests_on_checkpoint:
            return
        saved = shard.checkpoint
        for row in read_results(self.storage, saved.path, sha256=saved.sha256):
            if shard.is_shelved(row.row):
                yield row

    def _retry(self, action: Callable[[], Result], what: str) -> Result:
        return retry_while_unavailable(action, what=what, token=self.token)

    def _on_disk_trouble(self, shard: Shard, error: Exception) -> None:
        log.error("disk trouble", error=str(error))
        self.on_disk_trouble()


def _note_end(shard: Shard, outcome: Ending) -> None:
    """Count a shard that leaves this worker, and write it into the trace of its job."""
    shards_finished.labels(outcome).inc()
    lease = shard.lease
    record_stage(
        Stage(
            job=lease.job_public_id,
            name="shard",
            began=shard.claimed_at,
            ended=time.time(),
            attributes={
                "shard": lease.shard_id,
                "epoch": lease.epoch,
                "rows": shard.rows_done,
                "ending": outcome.value,
                "worker": lease.owner,
            },
        )
    )


def footer_of(
    lease: Lease, kv: KVTotals = UNMEASURED, numerics: tuple[Numerics, ...] = ()
) -> PartFooter:
    """Return the footer of a part that is written under a lease."""
    return PartFooter(
        job=lease.job_public_id,
        shard=lease.seq,
        epoch=lease.epoch,
        pos_start=lease.pos_start,
        pos_end=lease.pos_end,
        input_sha256=lease.input_sha256,
        model=lease.model,
        model_sha256=lease.model_sha256,
        kv=kv,
        numerics=numerics,
    )

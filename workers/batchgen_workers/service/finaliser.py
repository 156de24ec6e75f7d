"""Writes the dataset of every job whose shards are final, under a final lease of the job."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from structlog.contextvars import bound_contextvars

from batchgen import __version__
from batchgen.core.rows import ResultRow
from batchgen.core.states import StopReason
from batchgen.dataset.dataset import DatasetInfo, DatasetMeta, PartRef, Segment, write_dataset
from batchgen.errors import (
    Corrupt,
    DatabaseUnavailable,
    Fenced,
    JobNotFound,
    NotAllowed,
    StoreMismatch,
)
from batchgen.failpoints import reach
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.records.job_records import FinalLease, JobRecord, SegmentRecord
from batchgen.jobs.store import Store
from batchgen.requests.expected import without_expectations
from batchgen.storage.storage import Storage
from batchgen.telemetry.counters import jobs_ended, parquet_rows_written
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.observing import process_name
from batchgen_workers.periodic import PeriodicThread
from batchgen_workers.retry import retry_while_unavailable
from batchgen_workers.service.job_trace import trace_job
from batchgen_workers.shard.answers import STOPPED, refused
from batchgen_workers.shard.claim_gate import Draining
from batchgen_workers.shard.failure_limit import MAX_FAILURES
from batchgen_workers.shard.lease_keeper import RENEWALS_PER_TTL

ROWS_AT_ONCE = 1000  # error rows that are held in memory together
PAUSE_AFTER_TROUBLE = 15.0  # seconds until a dataset that could not be written is tried again

log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Finaliser:
    """Writes datasets and ends their jobs. Many may run; a job has one finaliser at a time."""

    store: Store
    storage: Storage
    # Seconds that a job's final lease lasts without a renewal.
    ttl: float
    # Once it is cancelled, a dataset in progress is left to another finaliser.
    token: CancelToken = field(default_factory=CancelToken)
    # {job id: time of the next attempt, by the monotonic clock}
    _not_before: dict[int, float] = field(default_factory=dict)
    # {job id: number of failures other than a full disk or an unavailable database}
    _failures: Counter[int] = field(default_factory=Counter)

    def run_once(self, *, only: Container[int] | None = None) -> int:
        """Write every dataset that is due and return the number of jobs that ended.

        With `only`, a set of internal job ids, other jobs are skipped.
        """
        now = time.monotonic()
        due = [
            job_id
            for job_id in self.store.finalization.finalizable()
            if self._not_before.get(job_id, now) <= now and (only is None or job_id in only)
        ]
        return sum(self._finalise(job_id) for job_id in due)

    def _finalise(self, job_id: int) -> bool:
        final = self.store.finalization.claim(job_id, owner=process_name(), ttl=self.ttl)
        if final is None:
            return False
        reach("final.claimed")
        with bound_contextvars(**final.job.log_context(), epoch=final.epoch):
            return self._write_claimed(final)

    def _write_claimed(self, final: FinalLease) -> bool:
        try:
            job = self._try_write(final)
        except Fenced:
            log.warning("finaliser fenced")
        except Draining:
            self._release(final, None)
        except Corrupt as error:
            # a retry would read the same bytes
            log.error("dataset refused", error=error.message)
            self._fail(final, error.message)
            return True
        except (OSError, DatabaseUnavailable, StoreMismatch) as error:
            log.error("dataset not written", error=str(error))
            self._try_later(final, str(error))
        except Exception as error:
            # an error of one job must not delay the datasets of others
            log.exception("dataset failed")
            return self._count_failure(final, describe(error))
        else:
            log.info("job ended", state=job.state, rows=job.n_rows)
            _note_end(job)
            return True
        return False

    def _try_write(self, final: FinalLease) -> JobRecord:
        try:
            return self._write(final)
        except Corrupt:
            self.storage.check()  # in another store every file is missing
            raise

    def _count_failure(self, final: FinalLease, reason: str) -> bool:
        """Plan another attempt, or fail the job after MAX_FAILURES; return True if it failed."""
        job_id = final.job.id
        self._failures[job_id] += 1
        if self._failures[job_id] >= MAX_FAILURES:
            self._fail(final, f"The dataset could not be written: {reason}")
            return True
        self._try_later(final, reason)
        return False

    def _try_later(self, final: FinalLease, error: str) -> None:
        self._not_before[final.job.id] = time.monotonic() + PAUSE_AFTER_TROUBLE
        self._release(final, error)

    def _write(self, final: FinalLease) -> JobRecord:
        root = f"datasets/{final.job.public_id}/e{final.epoch}"
        with _Renewal(self.store, final, self.ttl) as renewal:
            info = write_dataset(
                self.storage,
                root=root,
                segments=self._segments(final.job, renewal.check),
                meta=_meta(final.job),
            )
            reach("final.completing")
            job = self._complete(final, info)
            reach("final.completed")
            parquet_rows_written.labels("dataset").inc(info.n_rows)
            return job

    def _complete(self, final: FinalLease, info: DatasetInfo) -> JobRecord:
        try:
            return retry_while_unavailable(
                lambda: self.store.finalization.complete(
                    final, dataset_path=info.path, manifest_sha256=info.manifest_sha256
                ),
                what="completing a job",
                token=self.token,
            )
        except Fenced:
            # only this finaliser writes to the folder of this epoch
            shutil.rmtree(self.storage.path(info.path), ignore_errors=True)
            raise

    def _segments(self, job: JobRecord, check: Callable[[], None]) -> Iterator[Segment]:
        for segment in self.store.finalization.segments(job.id):
            check()
            if self.token.is_cancelled:
                raise Draining
            if segment.part is None:
                yield from stopped_rows(self.storage, job, segment)
            else:
                part = segment.part
                yield PartRef(path=part.path, n_rows=part.n_rows, sha256=part.sha256, kv=part.kv)

    def _fail(self, final: FinalLease, error: str) -> None:
        try:
            self.store.jobs.fail(final.job.id, error)
            _note_end(self.store.jobs.by_id(final.job.id))
        except (JobNotFound, NotAllowed):
            log.info("job has ended already")

    def _release(self, final: FinalLease, error: str | None) -> None:
        try:
            self.store.finalization.release(final, error=error)
        except (Fenced, DatabaseUnavailable) as lost:
            log.warning("final lease left", error=lost.message)


def _note_end(job: JobRecord) -> None:
    """Count a job that has ended, and write its trace."""
    jobs_ended.labels(job.state).inc()
    trace_job(job)


def stopped_rows(
    storage: Storage, job: JobRecord, segment: SegmentRecord
) -> Iterator[list[ResultRow]]:
    """Yield the error rows of a range that was never computed, ROWS_AT_ONCE at a time."""
    error = STOPPED[job.stop_reason or StopReason.CANCEL]
    rows: list[ResultRow] = []
    for row in parse_rows(
        storage,
        job.input_sha256,
        segment.pos_start,
        segment.pos_end,
        defaults=job.params,
        model=job.model,
    ):
        rows.append(refused(row, error, job=job.public_id, model=job.model, attempt=0))
        if len(rows) == ROWS_AT_ONCE:
            yield rows
            rows = []
    yield rows


class _Renewal:
    """Renews a final lease for a block, on a thread of its own."""

    def __init__(self, store: Store, final: FinalLease, ttl: float) -> None:
        self._store = store
        self._final = final
        self._ttl = ttl
        self._lost = False
        self._thread = PeriodicThread("final-lease", ttl / RENEWALS_PER_TTL, self._renew)

    def __enter__(self) -> _Renewal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()

    def check(self) -> None:
        """Raise Fenced once another finaliser has the lease."""
        if self._lost:
            raise Fenced

    def _renew(self) -> None:
        try:
            self._store.finalization.renew(self._final, ttl=self._ttl)
        except Fenced:
            self._lost = True


def _meta(job: JobRecord) -> DatasetMeta:
    return DatasetMeta(
        job_id=job.public_id,
        name=job.name,
        model=job.model,
        model_sha256=job.model_sha256,
        engine_version=__version__,
        params=without_expectations(job.params),
        input_sha256=job.input_sha256,
        n_rows=job.n_rows,
        created_at=job.created_at,
    )

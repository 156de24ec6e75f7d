"""One shard in flight: its results, the number of its rows in the engine, and its ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics, merge_numerics
from batchgen.core.rows import Generation, InputRow, ResultRow
from batchgen.dataset.result_table import held_bytes
from batchgen.jobs.records.job_records import Lease
from batchgen.telemetry.counters import count_answer
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.logs import get_logger
from batchgen_workers.shard.answers import answered, request_id

log = get_logger(__name__)

#: Rows, their KV pool totals, and how they were computed.
ShardResults: TypeAlias = tuple[list[ResultRow], KVTotals, tuple[Numerics, ...]]


class Ending(StrEnum):
    """The reason why a shard ends on this worker, and with it what the finisher does."""

    COMPLETE = "complete"  #: Every row has a result: commit.
    DRAINED = "drained"  #: The worker stops and the engine has none of its rows: save, release.
    HELD = "held"  #: The job is paused, or the worker's grace is over: save, release.
    STOPPED = "stopped"  #: The job is cancelled or expired: commit, error rows for the rest.
    ENGINE_DIED = "engine_died"  #: The engine cannot be restarted: save, release.
    BROKEN = "broken"  #: The disk or the database failed: save, release with a delay.
    FAILED = "failed"  #: Another failure, which may come again: the same, and it is counted.
    UNREADABLE = "unreadable"  #: The stored input is damaged: the job fails.
    FENCED = "fenced"  #: Another worker owns the shard: drop everything.


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLimits:
    """The most bytes of answers that a shard may hold, independent of the number of rows."""

    # in memory: above it, results are moved to the checkpoint
    memory_bytes: int = 32_000_000
    # in total: above it, the rows that were not submitted yet become another shard
    part_bytes: int = 256_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that is recorded in SQL."""

    path: str  # storage key
    sha256: str


class Shard:
    """The state of one leased shard, shared by its feeder, its finisher and the reader thread.

        to read ──► in the engine ──► rows {row: result} ──► shelved {row}
        feeder      counted           ended                  in the checkpoint only

    A row is in exactly one place. `shelved` starts with the rows of an earlier checkpoint. Only the
    supervisor knows which rows the engine has; here they are a number.
    """

    def __init__(self, lease: Lease, *, limits: ResultLimits | None = None) -> None:
        """Make a shard without results."""
        self.lease = lease
        #: Cancelled once the feeder must submit no more rows.
        self.feeding = CancelToken()
        #: Called when the shard has an ending or is heavy; on any thread, more than once.
        self.on_due: Callable[[], None] = lambda: None
        self.limits = limits or ResultLimits()
        #: Held during every SQL statement on the lease while rows are fed: a split changes it.
        self.leasing = threading.Lock()
        #: True if the rows that were not submitted yet are to become another shard.
        self.is_to_split = False
        #: The checkpoint in SQL, from this claim or an earlier one, and the number of its rows.
        self.checkpoint: Saved | None = None
        self.saved_rows = 0
        #: The time of the claim or of the last checkpoint attempt, by the monotonic clock.
        self.saved_at = time.monotonic()
        #: The time of the claim, in seconds since the epoch.
        self.claimed_at = time.time()
        #: The number of engine deaths that its rows may have caused, over all claims.
        self.deaths = lease.deaths
        #: The reason of an early ending, for the log and for SQL.
        self.reason: str | None = None
        self._rows: dict[int, ResultRow] = {}
        self._shelved: set[int] = set()
        # Bytes of `_rows`, and of all results under this claim.
        self._held_bytes = self._seen_bytes = 0
        # Generated tokens of the rows that have a result.
        self._tokens = 0
        # KV pool totals of exactly these rows.
        self._kv = UNMEASURED
        # How they were computed, by this worker's engine and by those of former owners.
        self._numerics: tuple[Numerics, ...] = ()
        # Number of rows that the engine has or is about to get.
        self._in_engine = 0
        self._ignores_engine = False
        self._early: Ending | None = None
        self._closing = False
        self._fed = False
        # 1 + the highest row that was submitted, or that a checkpoint holds.
        self._touched_end = lease.pos_start
        self._lock = threading.RLock()

    @property
    def rows_done(self) -> int:
        """The number of rows that have a result."""
        return len(self._rows) + len(self._shelved)

    @property
    def is_heavy(self) -> bool:
        """True while the results in memory exceed their limit and must go to a checkpoint."""
        return self._held_bytes > self.limits.memory_bytes

    @property
    def tokens_done(self) -> int:
        """The number of tokens generated for rows that have a result."""
        return self._tokens

    @property
    def rests_on_checkpoint(self) -> bool:
        """True while some results are in the checkpoint only."""
        return bool(self._shelved)

    @property
    def is_in_engine(self) -> bool:
        """True while the engine has, or is about to get, rows of the shard."""
        return self._in_engine > 0

    @property
    def wants_rows(self) -> bool:
        """True while the feeder should submit rows."""
        return not self.feeding.is_cancelled

    @property
    def touched_end(self) -> int:
        """The position from which on no row was computed or submitted."""
        return self._touched_end

    def has(self, row: int) -> bool:
        """Return whether a row has a result."""
        return row in self._rows or row in self._shelved

    def is_shelved(self, row: int) -> bool:
        """Return whether a row's result is in the checkpoint only."""
        return row in self._shelved

    def results(self) -> ShardResults:
        """Return the results in memory, in no order, the KV pool totals, and the numerics.

        Totals and numerics are those of all rows with a result, in memory or shelved.
        """
        with self._lock:
            return list(self._rows.values()), self._kv, self._numerics

    def shelve(self, results: Iterable[ResultRow]) -> None:
        """Drop results that the checkpoint holds from memory; keep their row numbers."""
        with self._lock:
            for result in results:
                if self._rows.pop(result.row, None) is not None:
                    self._shelved.add(result.row)
                    self._held_bytes -= held_bytes(result)

    def keep(self, results: Iterable[ResultRow], kv: KVTotals = UNMEASURED) -> None:
        """Add results that do not come from the engine: error rows, or those of a checkpoint."""
        with self._lock:
            for result in results:
                self._hold(result)
            self._kv += kv
        self._check_due()

    def recall(
        self,
        rows: Iterable[int],
        kv: KVTotals,
        numerics: tuple[Numerics, ...],
        *,
        tokens: int = 0,
    ) -> None:
        """Add the rows of a checkpoint, which stay in it, and the tokens generated for them."""
        rows = list(rows)
        with self._lock:
            self._tokens += tokens
            self._numerics = merge_numerics(self._numerics, numerics)
            self._shelved.update(rows)
            self._kv += kv
        self._touch(rows)
        self._check_due()

    def expect(self, rows: Collection[InputRow]) -> None:
        """Count rows that are about to go to the engine."""
        with self._lock:
            self._in_engine += len(rows)
        self._touch(row.row for row in rows)

    def withdraw(self, rows: Collection[InputRow]) -> None:
        """Subtract rows that were counted but did not go to the engine."""
        with self._lock:
            self._in_engine -= len(rows)
        self._check_due()

    def ask_to_split(self) -> None:
        """Ask the feeder to split off the rows that were not submitted yet, if any are left."""
        self.is_to_split = True

    def narrow(self, lease: Lease) -> None:
        """Keep only the rows of `lease`, the beginning of the shard; drop results of the rest."""
        with self._lock:
            self.lease = lease
            for row in [row for row in self._rows if row >= lease.pos_end]:
                self._held_bytes -= held_bytes(self._rows.pop(row))
            self._shelved = {row for row in self._shelved if row < lease.pos_end}
        self._check_due()

    def receive(
        self, row: InputRow, generation: Generation, numerics: Numerics | None = None
    ) -> None:
        """Take the engine's answer for one row; ignore it after `forget_engine_rows`."""
        with self._lock:
            if self._ignores_engine or self.has(row.row):
                return
            self._in_engine -= 1
            count_answer(generation)
            lease = self.lease
            _log_failure(lease, row, generation)
            self._hold(
                answered(
                    row,
                    generation,
                    job=lease.job_public_id,
                    model=lease.model,
                    attempt=lease.attempts,
                )
            )
            self._kv += KVTotals.of(generation)
            self._tokens += generation.usage.completion_tokens if generation.usage else 0
            if numerics and generation.error is None and numerics not in self._numerics:
                self._numerics = merge_numerics(self._numerics, [numerics])
        self._check_due()

    def count_death(self) -> None:
        """Count a death of an engine that had rows of the shard."""
        with self._lock:
            self.deaths += 1

    def fed(self) -> None:
        """Note that the feeder has submitted its last row."""
        with self._lock:
            self._fed = True
        self._check_due()

    def close(self) -> None:
        """Submit no more rows; let those in the engine end."""
        with self._lock:
            self._closing = True
        self.feeding.cancel()
        self._check_due()

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """End the shard early; the first ending is kept, but FENCED replaces every other one."""
        with self._lock:
            if self._early is None or ending is Ending.FENCED:
                self._early, self.reason = ending, reason
        self.feeding.cancel()
        self._check_due()

    @property
    def ending(self) -> Ending | None:
        """The reason to finish the shard; None while it goes on.

        The feeder has returned by then: only the engine still adds results.
        """
        with self._lock:
            if not self._fed:
                return None
            if self._early is not Ending.FENCED and self.rows_done == self.lease.n_rows:
                return Ending.COMPLETE
            if self._early is None and self._closing and not self._in_engine:
                return Ending.DRAINED
            return self._early

    def forget_engine_rows(self) -> None:
        """Forget the rows that the engine still has, and ignore their answers."""
        with self._lock:
            self._ignores_engine = True
            self._in_engine = 0

    def _check_due(self) -> None:
        """Call `on_due` if the shard has an ending or is heavy."""
        # a row's result makes no ending while the engine has other rows
        with self._lock:
            due = (self._in_engine == 0 or not self.wants_rows) and self.ending is not None
        if due or self.is_heavy:
            self.on_due()

    def _hold(self, result: ResultRow) -> None:
        former = self._rows.get(result.row)
        size = held_bytes(result)
        self._rows[result.row] = result
        self._held_bytes += size - (held_bytes(former) if former else 0)
        self._seen_bytes += size
        if self._seen_bytes > self.limits.part_bytes >= self._seen_bytes - size:
            self.ask_to_split()

    def _touch(self, rows: Iterable[int]) -> None:
        self._touched_end = max(self._touched_end, 1 + max(rows, default=-1))


def _log_failure(lease: Lease, row: InputRow, generation: Generation) -> None:
    """Log the error of a row for those who debug; its message, which may quote the row, stays."""
    if generation.error is not None:
        name = request_id(lease.job_public_id, row.row)
        log.debug("row failed", request=name, code=generation.error.code, **lease.log_context())

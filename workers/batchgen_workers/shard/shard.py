"""One shard in flight: the rows that ended, the rows the engine has, and why it is to stop."""

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
from batchgen.jobs.job_records import Lease
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.shard.answers import answered

#: Rows, what they did to the KV pool, and how they were computed.
ShardResults: TypeAlias = tuple[list[ResultRow], KVTotals, tuple[Numerics, ...]]


class Ending(StrEnum):
    """Why a shard comes to an end on this worker."""

    COMPLETE = "complete"  #: Every row has a result: commit.
    DRAINED = "drained"  #: The worker stops and the engine has none of its rows: save, release.
    HELD = "held"  #: The job is paused, or the worker's grace is over: save, release.
    STOPPED = "stopped"  #: The job is cancelled or expired: commit, error rows for the rest.
    ENGINE_DIED = "engine_died"  #: No engine gets anywhere any more: save, release.
    BROKEN = "broken"  #: The disk or the database refuses: save, release for a while.
    FAILED = "failed"  #: Something went wrong that may do so each time: the same, and counted.
    UNREADABLE = "unreadable"  #: The stored input is damaged: the job fails.
    FENCED = "fenced"  #: Another worker owns it: drop everything.


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLimits:
    """How many bytes of answers a shard may hold, however few rows they are."""

    # in memory: then they go to the checkpoint and stay there
    memory_bytes: int = 32_000_000
    # altogether: then what is untouched becomes another shard, and another part
    part_bytes: int = 256_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that SQL names."""

    path: str  # storage key
    sha256: str


class Shard:
    """The state of one leased shard, shared by its feeder, its finisher and the reader thread.

        to read ──► in the engine ──► rows {row: result} ──► shelved {row}
        feeder      counted           ended                  in the checkpoint only

    A row is in exactly one place. `shelved` starts with what a checkpoint holds. Which rows the
    engine has is known to the supervisor alone; here they are a number.
    """

    def __init__(self, lease: Lease, *, limits: ResultLimits | None = None) -> None:
        """Begin a shard without results."""
        self.lease = lease
        #: Cancelled once the feeder is to hand over no more rows.
        self.feeding = CancelToken()
        #: Called when the shard has come to its end, or is heavy; on any thread, more than once.
        self.on_due: Callable[[], None] = lambda: None
        self.limits = limits or ResultLimits()
        #: Held by whoever speaks to SQL of this lease while rows are fed: a split changes it.
        self.leasing = threading.Lock()
        #: Whether others have nothing to do and could compute what is untouched.
        self.is_to_split = False
        #: The checkpoint that SQL has, this claim's or an earlier one's, and its rows.
        self.checkpoint: Saved | None = None
        self.saved_rows = 0
        #: When the shard was claimed, or a checkpoint last tried, by the monotonic clock.
        self.saved_at = time.monotonic()
        #: Engine deaths that rows of this shard may have caused, over all of its claims.
        self.deaths = lease.deaths
        #: Filled by whoever ends the shard early, for the log and for SQL.
        self.reason: str | None = None
        self._rows: dict[int, ResultRow] = {}
        self._shelved: set[int] = set()
        # Bytes of `_rows`, and of all results that this claim has seen.
        self._held_bytes = self._seen_bytes = 0
        # Generated for the rows that have a result.
        self._tokens = 0
        # What exactly these rows did to the KV pool.
        self._kv = UNMEASURED
        # How they were computed: by this worker's engine, and by a former owner's.
        self._numerics: tuple[Numerics, ...] = ()
        # Rows that the engine has, or is about to get.
        self._in_engine = 0
        self._gave_up = False
        self._early: Ending | None = None
        self._closing = False
        self._fed = False
        # 1 + the highest row that the engine or a checkpoint has had.
        self._touched_end = lease.pos_start
        self._lock = threading.RLock()

    @property
    def rows_done(self) -> int:
        """Rows that have a result."""
        return len(self._rows) + len(self._shelved)

    @property
    def is_heavy(self) -> bool:
        """Whether the results in memory are to go to a checkpoint and stay there."""
        return self._held_bytes > self.limits.memory_bytes

    @property
    def tokens_done(self) -> int:
        """Tokens generated for rows that ended."""
        return self._tokens

    @property
    def rests_on_checkpoint(self) -> bool:
        """Whether rows of it are in its checkpoint only."""
        return bool(self._shelved)

    @property
    def is_in_engine(self) -> bool:
        """Whether the engine has, or is about to get, rows of it."""
        return self._in_engine > 0

    @property
    def wants_rows(self) -> bool:
        """Whether the feeder should go on."""
        return not self.feeding.is_cancelled

    @property
    def touched_end(self) -> int:
        """The position from which on nothing was computed or handed over."""
        return self._touched_end

    def has(self, row: int) -> bool:
        """Return whether a row has a result already."""
        return row in self._rows or row in self._shelved

    def is_shelved(self, row: int) -> bool:
        """Return whether a row's result is in the checkpoint only."""
        return row in self._shelved

    def results(self) -> ShardResults:
        """Return the results in memory, in no order, what all did to the KV pool, and the numerics.

        Totals and numerics are those of the rows in memory and on the shelf, and of no others.
        """
        with self._lock:
            return list(self._rows.values()), self._kv, self._numerics

    def shelve(self, results: Iterable[ResultRow]) -> None:
        """Forget results that the checkpoint holds, all but their numbers."""
        with self._lock:
            for result in results:
                if self._rows.pop(result.row, None) is not None:
                    self._shelved.add(result.row)
                    self._held_bytes -= held_bytes(result)

    def keep(self, results: Iterable[ResultRow], kv: KVTotals = UNMEASURED) -> None:
        """Add results that need no engine: error rows, or a checkpoint's with their totals."""
        with self._lock:
            for result in results:
                self._hold(result)
            self._kv += kv
        self._look()

    def recall(
        self,
        rows: Iterable[int],
        kv: KVTotals,
        numerics: tuple[Numerics, ...],
        *,
        tokens: int = 0,
    ) -> None:
        """Take over the rows of a checkpoint, which stay in it, and the tokens they took."""
        rows = list(rows)
        with self._lock:
            self._tokens += tokens
            self._numerics = merge_numerics(self._numerics, numerics)
            self._shelved.update(rows)
            self._kv += kv
        self._touch(rows)
        self._look()

    def expect(self, rows: Collection[InputRow]) -> None:
        """Count rows that are about to go to the engine."""
        with self._lock:
            self._in_engine += len(rows)
        self._touch(row.row for row in rows)

    def withdraw(self, rows: Collection[InputRow]) -> None:
        """Count off rows that did not go to the engine after all."""
        with self._lock:
            self._in_engine -= len(rows)
        self._look()

    def ask_to_split(self) -> None:
        """Let the feeder give up what is untouched, once; it may be too late for that."""
        self.is_to_split = True

    def narrow(self, lease: Lease) -> None:
        """Go on with the beginning of the shard only; results of the rest are its new owner's."""
        with self._lock:
            self.lease = lease
            for row in [row for row in self._rows if row >= lease.pos_end]:
                self._held_bytes -= held_bytes(self._rows.pop(row))
            self._shelved = {row for row in self._shelved if row < lease.pos_end}
        self._look()

    def receive(
        self, row: InputRow, generation: Generation, numerics: Numerics | None = None
    ) -> None:
        """Take what the engine returns for one row; it may come after the row was given up."""
        with self._lock:
            if self._gave_up or self.has(row.row):
                return
            self._in_engine -= 1
            lease = self.lease
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
        self._look()

    def count_death(self) -> None:
        """Note that an engine died that had rows of the shard."""
        with self._lock:
            self.deaths += 1

    def fed(self) -> None:
        """Say that the feeder has handed over its last row."""
        with self._lock:
            self._fed = True
        self._look()

    def close(self) -> None:
        """Take no more rows from the input; those in the engine may end."""
        with self._lock:
            self._closing = True
        self.feeding.cancel()
        self._look()

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """End the shard early; the first reason counts, but being fenced overrides all."""
        with self._lock:
            if self._early is None or ending is Ending.FENCED:
                self._early, self.reason = ending, reason
        self.feeding.cancel()
        self._look()

    @property
    def ending(self) -> Ending | None:
        """Why the shard is to be finished; None while it is not.

        Once there is one the feeder is done: nobody adds to the shard any more but the engine.
        """
        with self._lock:
            if not self._fed:
                return None
            if self._early is not Ending.FENCED and self.rows_done == self.lease.n_rows:
                return Ending.COMPLETE
            if self._early is None and self._closing and not self._in_engine:
                return Ending.DRAINED
            return self._early

    def give_up(self) -> None:
        """Forget the rows that the engine still has: their answers are not taken any more."""
        with self._lock:
            self._gave_up = True
            self._in_engine = 0

    def _look(self) -> None:
        """See whether somebody has to attend to the shard now."""
        # no ending comes of a row while the engine has others
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

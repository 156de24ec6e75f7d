"""One shard in flight: the rows that ended, the rows the engine has, and why it is to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from batchgen.io.kv_totals import UNMEASURED, KVTotals
from batchgen.io.numerics import Numerics, merge_numerics
from batchgen.io.results import held_bytes
from batchgen.io.rows import Generation, InputRow, ResultRow
from batchgen.jobs.records import Lease
from batchgen_workers.answers import answered

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
    """The state of one leased shard, shared by its feeder, its settler and the reader thread.

        to read ──► waiting {key: row} ──► rows {row: result} ──► shelved {row}
        feeder      in the engine          ended                  in the checkpoint only

    A row is in exactly one place. `shelved` starts with what a checkpoint holds.
    """

    def __init__(
        self, lease: Lease, *, wake: Callable[[], None], limits: ResultLimits | None = None
    ) -> None:
        """Begin a shard without results; `wake` lets its feeder look at `wants_rows` again."""
        self.lease = lease
        self.limits = limits or ResultLimits()
        #: Held by whoever speaks to SQL of this lease while rows are fed: a split changes it.
        self.leasing = threading.Lock()
        #: Whether others have nothing to do and could compute what is untouched.
        self.is_to_split = False
        #: The checkpoint that SQL has, this claim's or an earlier one's, and its rows.
        self.checkpoint: Saved | None = None
        self.saved_rows = 0
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
        self._waiting: dict[int, InputRow] = {}
        self._early: Ending | None = None
        self._closing = False
        self._fed = False
        # 1 + the highest row that the engine or a checkpoint has had.
        self._touched_end = lease.pos_start
        self._changed = threading.Condition()
        self._wake = wake

    @property
    def rows_done(self) -> int:
        """Rows that have a result."""
        return len(self._rows) + len(self._shelved)

    @property
    def is_heavy(self) -> bool:
        """Whether the results in memory are to go to a checkpoint and stay there."""
        return self._held_bytes > self.limits.memory_bytes

    def tokens(self, progress: Mapping[int, int]) -> tuple[int, int]:
        """Return the tokens generated for rows that ended and for rows that have not.

        `progress` is what the engine says of the latter, by key.
        """
        with self._changed:
            return self._tokens, sum(progress.get(key, 0) for key in self._waiting)

    @property
    def rests_on_checkpoint(self) -> bool:
        """Whether rows of it are in its checkpoint only."""
        return bool(self._shelved)

    @property
    def is_in_engine(self) -> bool:
        """Whether the engine has, or is about to get, rows of it."""
        return bool(self._waiting)

    @property
    def wants_rows(self) -> bool:
        """Whether the feeder should go on."""
        return self._early is None and not self._closing

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
        with self._changed:
            return list(self._rows.values()), self._kv, self._numerics

    def shelve(self, results: Iterable[ResultRow]) -> None:
        """Forget results that the checkpoint holds, all but their numbers."""
        with self._changed:
            for result in results:
                if self._rows.pop(result.row, None) is not None:
                    self._shelved.add(result.row)
                    self._held_bytes -= held_bytes(result)

    def keep(self, results: Iterable[ResultRow], kv: KVTotals = UNMEASURED) -> None:
        """Add results that need no engine: error rows, or a checkpoint's with their totals."""
        with self._changed:
            for result in results:
                self._hold(result)
            self._kv += kv
            self._changed.notify_all()

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
        with self._changed:
            self._tokens += tokens
            self._numerics = merge_numerics(self._numerics, numerics)
            self._shelved.update(rows)
            self._kv += kv
            self._changed.notify_all()
        self._touch(rows)

    def expect(self, rows: dict[int, InputRow]) -> None:
        """Note rows, by key, that are about to go to the engine."""
        with self._changed:
            self._waiting.update(rows)
        self._touch(row.row for row in rows.values())

    def ask_to_split(self) -> None:
        """Let the feeder give up what is untouched, once; it may be too late for that."""
        self.is_to_split = True

    def narrow(self, lease: Lease) -> None:
        """Go on with the beginning of the shard only; results of the rest are its new owner's."""
        with self._changed:
            self.lease = lease
            for row in [row for row in self._rows if row >= lease.pos_end]:
                self._held_bytes -= held_bytes(self._rows.pop(row))
            self._shelved = {row for row in self._shelved if row < lease.pos_end}
            self._changed.notify_all()

    def receive(self, generation: Generation, numerics: Numerics | None = None) -> None:
        """Take what the engine returns for one row; it may come after the row was given up."""
        with self._changed:
            row = self._waiting.pop(generation.key, None)
            if row is None:
                return
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
            # no ending comes of a row while the engine has others
            if not self._waiting or self.is_heavy:
                self._changed.notify_all()

    def count_death(self, keys: Iterable[int]) -> None:
        """Note that an engine died that had these rows, if any of them is the shard's."""
        with self._changed:
            if any(key in self._waiting for key in keys):
                self.deaths += 1

    def fed(self) -> None:
        """Say that the feeder has handed over its last row."""
        with self._changed:
            self._fed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more rows from the input; those in the engine may end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._wake()

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """End the shard early; the first reason counts, but being fenced overrides all."""
        with self._changed:
            if self._early is None or ending is Ending.FENCED:
                self._early, self.reason = ending, reason
            self._changed.notify_all()
        self._wake()

    def wait(self, timeout: float) -> Ending | None:
        """Wait until the shard is to be settled and return why.

        None means that a checkpoint is due: after `timeout` seconds, or because it is heavy. At an
        ending the feeder is done: nobody adds to the shard any more but the engine.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ending() is not None or self.is_heavy, timeout)
            return self._ending()

    def give_up(self) -> list[int]:
        """Forget the rows the engine still has and return their keys."""
        with self._changed:
            keys = list(self._waiting)
            self._waiting.clear()
            return keys

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

    def _ending(self) -> Ending | None:
        if not self._fed:
            return None
        if self._early is not Ending.FENCED and self.rows_done == self.lease.n_rows:
            return Ending.COMPLETE
        if self._early is None and self._closing and not self._waiting:
            return Ending.DRAINED
        return self._early

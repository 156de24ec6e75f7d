"""One shard in flight: the rows that ended, the rows the engine has, and why it is to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import StrEnum

from batchgen.io.kv_totals import UNMEASURED, KVTotals
from batchgen.io.numerics import Numerics, merge_numerics
from batchgen.io.rows import Generation, InputRow, ResultRow
from batchgen.jobs.records import Lease
from batchgen_workers.answers import answered


class Ending(StrEnum):
    """Why a shard comes to an end on this worker."""

    COMPLETE = "complete"  #: Every row has a result: commit.
    DRAINED = "drained"  #: The worker stops and the engine has none of its rows: save, release.
    HELD = "held"  #: The job is paused, or the worker's grace is over: save, release.
    STOPPED = "stopped"  #: The job is cancelled or expired: commit, error rows for the rest.
    ENGINE_DIED = "engine_died"  #: No engine gets anywhere any more: save, release.
    BROKEN = "broken"  #: Something unforeseen went wrong here: save, release for a while.
    UNREADABLE = "unreadable"  #: The stored input is damaged: the job fails.
    FENCED = "fenced"  #: Another worker owns it: drop everything.


class Shard:
    """The state of one leased shard, shared by its feeder, its settler and the reader thread.

        to read ──► waiting {key: row} ──► rows {row: result}
        feeder      in the engine          ended

    A row is in exactly one place. `rows` starts with what a checkpoint held.
    """

    def __init__(self, lease: Lease, *, wake: Callable[[], None]) -> None:
        """Begin a shard without results; `wake` lets its feeder look at `wants_rows` again."""
        self.lease = lease
        #: Held by whoever speaks to SQL of this lease while rows are fed: a split changes it.
        self.leasing = threading.Lock()
        #: Whether others have nothing to do and could compute what is untouched.
        self.is_to_split = False
        #: Storage key and rows of the checkpoint that SQL has, this claim's or an earlier one's.
        self.checkpoint: str | None = None
        self.saved_rows = 0
        #: Engine deaths that rows of this shard may have caused, over all of its claims.
        self.deaths = lease.deaths
        #: Filled by whoever ends the shard early, for the log and for SQL.
        self.reason: str | None = None
        self._rows: dict[int, ResultRow] = {}
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
        return len(self._rows)

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
        return row in self._rows

    def results(self) -> tuple[list[ResultRow], KVTotals, tuple[Numerics, ...]]:
        """Return the results so far, in no order, what they did to the KV pool, and their numerics.

        All of these very rows, and of no others.
        """
        with self._changed:
            return list(self._rows.values()), self._kv, self._numerics

    def keep(self, results: Iterable[ResultRow], kv: KVTotals = UNMEASURED) -> None:
        """Add results that need no engine: error rows, or a checkpoint's with their totals."""
        with self._changed:
            self._rows.update((result.row, result) for result in results)
            self._kv += kv
            self._changed.notify_all()

    def recall(
        self, results: Iterable[ResultRow], kv: KVTotals, numerics: tuple[Numerics, ...]
    ) -> None:
        """Take over the results of a checkpoint."""
        results = list(results)
        with self._changed:
            self._numerics = merge_numerics(self._numerics, numerics)
            self.keep(results, kv)
        self._touch(result.row for result in results)

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
            self._rows = {row: one for row, one in self._rows.items() if row < lease.pos_end}
            self._changed.notify_all()

    def receive(self, generation: Generation, numerics: Numerics | None = None) -> None:
        """Take what the engine returns for one row; it may come after the row was given up."""
        with self._changed:
            row = self._waiting.pop(generation.key, None)
            if row is None:
                return
            lease = self.lease
            self._rows[row.row] = answered(
                row,
                generation,
                job=lease.job_public_id,
                model=lease.model,
                attempt=lease.attempts,
            )
            self._kv += KVTotals.of(generation)
            if numerics and generation.error is None and numerics not in self._numerics:
                self._numerics = merge_numerics(self._numerics, [numerics])
            if not self._waiting:  # no ending comes of a row while the engine has others
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
        """Wait until the shard is to be settled and return why, None after `timeout` seconds.

        The feeder is done by then: nobody adds to the shard any more but the engine.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ending() is not None, timeout)
            return self._ending()

    def give_up(self) -> list[int]:
        """Forget the rows the engine still has and return their keys."""
        with self._changed:
            keys = list(self._waiting)
            self._waiting.clear()
            return keys

    def _touch(self, rows: Iterable[int]) -> None:
        self._touched_end = max(self._touched_end, 1 + max(rows, default=-1))

    def _ending(self) -> Ending | None:
        if not self._fed:
            return None
        if self._early is not Ending.FENCED and len(self._rows) == self.lease.n_rows:
            return Ending.COMPLETE
        if self._early is None and self._closing and not self._waiting:
            return Ending.DRAINED
        return self._early

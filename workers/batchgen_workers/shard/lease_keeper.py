"""Renews the leases of a worker's shards, and ends shards whose job was stopped or paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from batchgen.core.states import JobState
from batchgen.errors import DatabaseUnavailable, Fenced
from batchgen.jobs.records.job_records import Renewal
from batchgen.jobs.store import Store
from batchgen_workers.logs import get_logger
from batchgen_workers.shard.shard import Ending, Shard
from batchgen_workers.shard.shards import Shards

RENEWALS_PER_TTL = 6
PROGRESS_INTERVAL = 1.0  # seconds between two reports of one shard's rows to SQL, at least
TOKENS_INTERVAL = 10.0  # seconds between two reports of the tokens in progress, at most
RENEWALS_PER_SECOND = 10  # of all shards together, if they only report progress
LEASING_PATIENCE = 0.1  # seconds to wait for a shard's lock: the other leases wait meanwhile

log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class LeaseKeeper:
    """Renews the lease of every shard in flight; `tick` is called from one thread."""

    store: Store
    shards: Shards
    ttl: float
    # Seconds without progress after which a shard's lease is not renewed: a disk that hangs must
    # not hold its rows for ever.
    stall_timeout: float
    # Returns the tokens of a shard's rows that are being answered.
    tokens_running: Callable[[Shard], int] = lambda shard: 0
    # {shard: (time of its last progress, its rows at that time)}
    _moved: dict[Shard, tuple[float, int]] = field(default_factory=dict)
    # {shard: (time of its last renewal, its rows at that time)}
    _renewed: dict[Shard, tuple[float, int]] = field(default_factory=dict)

    @property
    def interval(self) -> float:
        """The seconds between two calls of `tick`."""
        return min(PROGRESS_INTERVAL, self.ttl / RENEWALS_PER_TTL)

    def tick(self) -> None:
        """Renew each lease after a sixth of the TTL, or earlier to report progress."""
        present = list(self.shards)
        self._renewed = {shard: self._renewed[shard] for shard in present if shard in self._renewed}
        self._moved = {shard: self._last_move(shard) for shard in present}
        patience = max(PROGRESS_INTERVAL, len(present) / RENEWALS_PER_SECOND)
        for shard in present:
            if self._is_due(shard, patience):
                self._renew(shard)

    def _is_due(self, shard: Shard, patience: float) -> bool:
        # a new claim counts as renewed now: its lease has its whole TTL left
        at, rows = self._renewed.setdefault(shard, (time.monotonic(), shard.saved_rows))
        age = time.monotonic() - at
        if age >= self.ttl / RENEWALS_PER_TTL - self.interval / 2:
            return True
        if age >= TOKENS_INTERVAL - self.interval / 2 and shard.is_in_engine:
            return True
        return age >= patience - self.interval / 2 and shard.rows_done != rows

    def _last_move(self, shard: Shard) -> tuple[float, int]:
        at, rows = self._moved.get(shard, (0.0, -1))
        if shard.is_in_engine or shard.rows_done != rows:  # rows that wait in the engine: not stuck
            return time.monotonic(), shard.rows_done
        return at, rows

    def _is_stuck(self, shard: Shard) -> bool:
        return time.monotonic() - self._moved[shard][0] > self.stall_timeout

    def _renew(self, shard: Shard) -> None:
        """Renew one lease, unless the shard is stuck or its checkpoint is being written."""
        if self._is_stuck(shard):
            self._renewed[shard] = (time.monotonic(), shard.rows_done)  # log it again later
            log.warning("shard stuck", rows=shard.rows_done, **shard.lease.log_context())
        elif shard.leasing.acquire(timeout=LEASING_PATIENCE):
            try:
                self._renew_now(shard)
            finally:
                shard.leasing.release()

    def _renew_now(self, shard: Shard) -> None:
        rows = shard.rows_done
        try:
            renewal = self.store.leases.renew(
                shard.lease,
                rows_done=rows,
                tokens_done=shard.tokens_done,
                tokens_running=self.tokens_running(shard),
                deaths=shard.deaths,
                ttl=self.ttl,
            )
        except Fenced:
            shard.end(Ending.FENCED)
        except DatabaseUnavailable as error:
            # The lease may still be ours: go on, and decide when the database answers again.
            log.warning("lease not renewed", error=error.message, **shard.lease.log_context())
        else:
            self._renewed[shard] = (time.monotonic(), rows)
            _apply(renewal, shard)


def _apply(renewal: Renewal, shard: Shard) -> None:
    """Split or end a shard as its job requires by now."""
    if renewal.goes_on:
        if renewal.give_up:
            shard.ask_to_split()
        return
    stopping = renewal.state is JobState.STOPPING
    shard.end(Ending.STOPPED if stopping else Ending.HELD)

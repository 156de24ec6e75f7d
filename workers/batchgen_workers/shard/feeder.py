"""Reads the rows of a claimed shard and sends those without a result to the engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from batchgen.core.rows import BadRow, Generation, InputRow
from batchgen.dataset.parts import count_tokens, read_footer, read_part
from batchgen.errors import BatchgenError, Corrupt, EngineFailed, Fenced, Unavailable
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.records.job_records import Lease
from batchgen.jobs.store import Store
from batchgen.storage.storage import Storage
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.supervisor import LEAST_PLACES, EngineRow, EngineSupervisor
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.retry import retry_while_unavailable
from batchgen_workers.shard.answers import as_request, bad, seeded
from batchgen_workers.shard.longest_first import longest_last_rows_first
from batchgen_workers.shard.shard import Ending, Saved, Shard

# After so many leases of a shard have run out, its rows are computed apart. A lost lease alone does
# not incriminate a row, but a row that kills the whole worker could not be found otherwise.
LOSSES_TO_SUSPECT = 5
ROWS_READ = LEAST_PLACES  # rows that are read and submitted together

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeder:
    """Reads shards of one worker's model and hands their rows to its engine."""

    store: Store
    storage: Storage
    supervisor: EngineSupervisor
    # Once it is cancelled, an unavailable database is not waited for any longer.
    token: CancelToken
    # Number of rows at the end of a shard that go to the engine longest first.
    tail: int
    # Seconds that the lease of a shard lasts after a split.
    lease_ttl: float
    # Keys of rows in the engine; none is used twice in a worker's life.
    keys: Iterator[int] = field(default_factory=itertools.count)

    def feed(self, shard: Shard) -> None:
        """Submit every row without a result to the engine, as fast as it has places.

        Returns once the last row is submitted or the shard was ended. An error ends the shard, and
        its finisher acts on that.
        """
        try:
            self._recall(shard)
            self._hand_over(shard)
        except Fenced:
            shard.end(Ending.FENCED)
        except EngineFailed as error:
            shard.end(Ending.ENGINE_DIED, error.message)
        except Corrupt as error:
            shard.end(Ending.UNREADABLE, error.message)
        except (Unavailable, OSError) as error:
            shard.end(Ending.BROKEN, str(error))
        except BatchgenError as error:
            shard.end(Ending.FAILED, error.message)
        except BaseException as error:
            shard.end(Ending.FAILED, describe(error))
            raise
        finally:
            shard.fed()

    def _recall(self, shard: Shard) -> None:
        """Load the results in the checkpoint of a former owner of the shard."""
        saved = retry_while_unavailable(
            lambda: self.store.leases.checkpoint_of(shard.lease.shard_id),
            what="reading a checkpoint",
            token=self.token,
        )
        if saved is None:
            return
        shard.checkpoint = Saved(path=saved.path, sha256=saved.sha256)
        try:
            rows: list[int] = []
            tokens = 0
            for table in read_part(self.storage, saved.path, sha256=saved.sha256):
                rows += table["row"].to_pylist()
                tokens += count_tokens(table, "completion_tokens")
            footer = read_footer(self.storage, saved.path)
        except Corrupt as error:
            # the rows are computed again: only time is lost
            log.warning("checkpoint lost", error=error.message, **shard.lease.log_context())
            return
        # After a split the checkpoint may hold rows that belong to another shard now: bad lines get
        # their errors as soon as they are read, before the rows around them are computed.
        lease = shard.lease
        ours = [row for row in rows if lease.pos_start <= row < lease.pos_end]
        shard.saved_rows = len(ours)
        shard.recall(ours, footer.kv, footer.numerics, tokens=tokens)

    def _hand_over(self, shard: Shard) -> None:
        rows = longest_last_rows_first(self._missing(shard), self.tail)
        while shard.wants_rows and (batch := list(itertools.islice(rows, ROWS_READ))):
            if shard.is_to_split:
                rows = self._split(shard, itertools.chain(batch, rows))
                continue
            shard.expect(batch)
            apart = shard.lease.lost >= LOSSES_TO_SUSPECT
            taken = [self._as_engine_row(shard, row) for row in batch]
            if not self.supervisor.submit(taken, shard.feeding, apart=apart) and not apart:
                shard.withdraw(batch)

    def _as_engine_row(self, shard: Shard, row: InputRow) -> EngineRow:
        def receive(generation: Generation) -> None:
            shard.receive(row, generation, self.supervisor.numerics)

        return EngineRow(as_request(row, next(self.keys), shard.lease), receive, owner=shard)

    def _split(self, shard: Shard, rest: Iterable[InputRow]) -> Iterator[InputRow]:
        """Split off the rows that were never submitted; return the rows that are left to feed."""
        shard.is_to_split = False
        cut = shard.touched_end
        rest = list(rest)
        if not shard.lease.pos_start < cut <= max(row.row for row in rest):
            return iter(rest)
        with shard.leasing:
            lease = retry_while_unavailable(
                lambda: self.store.splits.split(shard.lease, cut=cut, ttl=self.lease_ttl),
                what="a split",
                token=self.token,
            )
            shard.narrow(lease)
        log.info("shard split", rows=lease.n_rows, **lease.log_context())
        return iter([row for row in rest if row.row < cut])

    def _missing(self, shard: Shard) -> Iterator[InputRow]:
        """Yield the rows that the engine must compute; give bad lines their errors."""
        for row in rows_of(self.storage, shard.lease):
            if shard.has(row.row):
                continue
            if isinstance(row, BadRow):
                shard.keep([bad(row, shard.lease)])
            else:
                yield seeded(shard.lease.job_public_id, row)


def rows_of(storage: Storage, lease: Lease) -> Iterator[InputRow | BadRow]:
    """Yield the input rows of a shard, parsed; raise Corrupt."""
    return parse_rows(
        storage,
        lease.input_sha256,
        lease.pos_start,
        lease.pos_end,
        defaults=lease.params,
        model=lease.model,
    )

"""The finished rows of a job: those of its dataset, or of its parts and checkpoints so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchgen.dataset.parts import read_part
from batchgen.dataset.streams.record_batches import (
    ALL,
    Batches,
    Config,
    Numbers,
    dataset_batches,
    sliced,
)
from batchgen.jobs.records.job_records import JobRecord, SavedSegment
from batchgen.jobs.store import Store
from batchgen.storage.storage import Storage

BOTH: Sequence[Config] = ("default", "errors")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRows:
    """Reads the finished rows of the jobs of one home."""

    store: Store
    storage: Storage

    def batches(
        self,
        job: JobRecord,
        *,
        configs: Sequence[Config] = BOTH,
        columns: Sequence[str] = ALL,
        after: int = -1,
        only: Numbers | None = None,
    ) -> Batches:
        """Return the finished rows of a job with a number above `after`, in input order.

        Before there is a dataset these are the rows of committed shards, and those in checkpoints
        of other shards. If the sorted numbers `only` are given, other rows may be left out.
        `columns` must have `row`. Raises Corrupt if a file is missing or damaged.
        """
        if not configs:
            return iter(())
        if job.dataset_path is not None:
            folder = self.storage.path(job.dataset_path)
            return dataset_batches(folder, configs=configs, columns=columns, after=after, only=only)
        found = self._saved_batches(job, only_failed="default" not in configs, after=after)
        chosen = (_select(batch, configs) for batch in found)
        return (batch.select(columns) for batch in chosen if len(batch))

    def _saved_batches(self, job: JobRecord, *, only_failed: bool, after: int) -> Batches:
        position, lost = after + 1, ""
        while saved := self.store.finalization.saved(
            job.id, start=position, only_failed=only_failed
        ):
            for one in saved:
                if self.storage.size(one.path) is None and one.path != lost:
                    lost = one.path  # a newer checkpoint or a part has replaced it
                    break
                yield from self._read(one, position)
                position = one.pos_end

    def _read(self, saved: SavedSegment, position: int) -> Iterator[pa.RecordBatch]:
        first = max(saved.pos_start, position)
        for table in read_part(self.storage, saved.path, sha256=saved.sha256):
            for batch in sliced(iter(table.to_batches()), first - 1):
                yield batch.filter(pc.less(batch["row"], saved.pos_end))


def _select(batch: pa.RecordBatch, configs: Sequence[Config]) -> pa.RecordBatch:
    if len(configs) == len(BOTH):
        return batch
    error = batch["error"]
    return batch.filter(error.is_null() if "default" in configs else error.is_valid())

"""The endpoint of OpenAI that each row of a job was asked of."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batchgen.core.rows import BadRow, InputRow
from batchgen.dataset.openai_output import CHAT, COMPLETIONS
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.job_records import JobRecord
from batchgen.storage.storage import Storage


class RowEndpoints:
    """Gives the endpoints of rows, in input order: `known`, or that of each line of the input."""

    def __init__(self, storage: Storage, job: JobRecord, known: str | None) -> None:
        self._storage = storage
        self._job = job
        self._known = known
        self._lines: Iterator[InputRow | BadRow] | None = None

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the endpoint of each row of a batch; the batches must be in input order."""
        if self._known is not None:
            return pa.repeat(self._known, len(batch))
        return pa.array([self._read(row) for row in batch["row"].to_pylist()], pa.string())

    def _read(self, row: int) -> str:
        if self._lines is None:
            self._lines = parse_rows(
                self._storage,
                self._job.input_sha256,
                row,
                self._job.n_rows,
                defaults=self._job.params,
                model=self._job.model,
            )
        # some rows may still be missing
        line = next(line for line in self._lines if line.row == row)
        return COMPLETIONS if isinstance(line, BadRow) or line.messages is None else CHAT

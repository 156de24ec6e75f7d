"""The requests of a job's rows, as far as the form of their answers depends on them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batchgen.core.endpoints import CHAT, RESPONSES
from batchgen.core.rows import BadRow, InputRow
from batchgen.dataset.streams.openai_lines import Requests
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.job_records import JobRecord
from batchgen.storage.storage import Storage


class RowRequests:
    """Gives the requests of rows in input order. `endpoint` is that of all rows, if it is known.

    The input is read if it is not, and for /v1/responses, whose answers repeat their requests.
    """

    def __init__(self, storage: Storage, job: JobRecord, endpoint: str | None) -> None:
        self._storage = storage
        self._job = job
        self._endpoint = endpoint if endpoint != RESPONSES else None
        self._lines: Iterator[InputRow | BadRow] | None = None

    def of(self, batch: pa.RecordBatch) -> Requests:
        """Return the requests of the rows of a batch; the batches must be in input order."""
        if self._endpoint is not None:
            return Requests(endpoints=pa.repeat(self._endpoint, len(batch)))
        lines = [self._line(row) for row in batch["row"].to_pylist()]
        return Requests(
            # an error has the same form at every endpoint
            endpoints=pa.array(
                [CHAT if isinstance(line, BadRow) else line.endpoint for line in lines], pa.string()
            ),
            echoes=[None if isinstance(line, BadRow) else line.echo for line in lines],
        )

    def _line(self, row: int) -> InputRow | BadRow:
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
        return next(line for line in self._lines if line.row == row)

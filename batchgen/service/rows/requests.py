"""The requests of a job's rows, as far as the form of their answers depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from batchgen.core.endpoints import CHAT, RESPONSES
from batchgen.core.rows import BadRow
from batchgen.dataset.streams.openai_lines import Requests
from batchgen.inputs.stored_input import read_rows
from batchgen.jobs.records.job_records import JobRecord
from batchgen.requests.lines import LineParser
from batchgen.requests.openai.plain_endpoints import plain_endpoint
from batchgen.storage.storage import Storage

Echo = Mapping[str, Any] | None


class RowRequests:
    """Gives the requests of rows in input order. `endpoint` is that of all rows, if it is known.

    The input is read if it is not, and for /v1/responses, whose answers repeat their requests.
    """

    def __init__(self, storage: Storage, job: JobRecord, endpoint: str | None) -> None:
        self._storage = storage
        self._job = job
        self._endpoint = endpoint if endpoint != RESPONSES else None
        self._parser = LineParser(job.params, job.model)
        self._lines: Iterator[tuple[int, bytes]] | None = None

    def of(self, batch: pa.RecordBatch) -> Requests:
        """Return the requests of the rows of a batch; the batches must be in input order."""
        if self._endpoint is not None:
            return Requests(endpoints=pa.repeat(self._endpoint, len(batch)))
        asked = [self._asked(self._line(row), row) for row in batch["row"].to_pylist()]
        return Requests(
            endpoints=pa.array([endpoint for endpoint, _ in asked], pa.string()),
            echoes=[echo for _, echo in asked],
        )

    def _asked(self, raw: bytes, row: int) -> tuple[str, Echo]:
        endpoint = None if self._parser.columns else plain_endpoint(raw)
        if endpoint is not None:
            return endpoint, None
        line = self._parser.parse(raw, row)
        # an error has the same form at every endpoint
        return (CHAT, None) if isinstance(line, BadRow) else (line.endpoint, line.echo)

    def _line(self, row: int) -> bytes:
        if self._lines is None:
            self._lines = read_rows(self._storage, self._job.input_sha256, row, self._job.n_rows)
        # some rows may still be missing
        return next(raw for number, raw in self._lines if number == row)

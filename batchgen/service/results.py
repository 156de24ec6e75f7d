"""Results of jobs: their datasets, or the rows committed so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from batchgen.core.endpoints import CHAT, RESPONSES
from batchgen.core.rows import BadRow, ResultRow
from batchgen.dataset.export import export_dataset
from batchgen.dataset.json_lines import escape_line_ends
from batchgen.dataset.manifest import read_manifest
from batchgen.dataset.openai_output import openai_line
from batchgen.dataset.parts import read_results
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Corrupt, NotAllowed
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.job_records import JobRecord, SavedSegment
from batchgen.jobs.store import Store
from batchgen.storage.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Gives access to the results of one home's jobs. `ref` names a job as in `Service`.

    Every method raises JobNotFound, NotAllowed if there is no dataset (yet), and Corrupt if a file
    is missing or damaged.
    """

    store: Store
    storage: Storage
    # Service.job
    find: Callable[[str], JobRecord]

    def dataset(self, ref: str) -> Path:
        """Return the folder of a finished dataset."""
        return self._folder(self.find(ref))

    def export(self, ref: str, out: Path) -> Path:
        """Copy a finished dataset to a folder and return the folder.

        Raises OutputConflict if the folder holds something else, Corrupt if the dataset is not
        the one that the job ended with.
        """
        self._place(ref, out, move=False)
        return out

    def move(self, ref: str, out: Path) -> None:
        """Move a finished dataset to a folder of the same disk; errors are those of `export`.

        The home does not have it any more. If this is interrupted, call it again.
        """
        self._place(ref, out, move=True)

    def verify(self, ref: str) -> list[str]:
        """Return one sentence for each file of a dataset that is missing, changed or extra."""
        job = self.find(ref)
        problems = verify_dataset(self._folder(job), manifest_sha256=job.manifest_sha256)
        if problems:
            self.storage.check()
        return problems

    def parts(self, ref: str) -> list[Path]:
        """Return the Parquet files committed so far, in input order."""
        return [self.storage.path(key) for key in self._part_keys(self.find(ref))]

    def rows(self, ref: str, *, partial: bool = False) -> Iterator[ResultRow]:
        """Return every row in input order; with `partial`, those finished so far.

        Finished rows are those of committed shards, and those in checkpoints of other shards.
        """
        job = self.find(ref)
        if partial and job.dataset_path is None:
            return self._finished(job)
        return iter_rows(self._folder(job))

    def openai_rows(self, ref: str, *, partial: bool = False) -> Iterator[dict[str, Any]]:
        """Return every row in the form of OpenAI's output and error files.

        The endpoint of a row is the one of its input line, so the input is read too.
        """
        return self._in_openais_form(self.find(ref), self.rows(ref, partial=partial), None)

    def openai_lines(
        self, ref: str, *, errors: bool, endpoint: str | None = None, partial: bool = False
    ) -> Iterator[bytes]:
        """Return OpenAI's output file of a job, or with `errors` its error file, in pieces.

        A piece holds one or more complete lines, each with its line feed. Rows are in input order.
        `endpoint` is that of every line, as in a batch; if it is None, the endpoint of each row is
        read from the stored input, which is slower. So are requests to /v1/responses, because their
        answers repeat them. With `partial` the file holds the rows that are finished so far. Memory
        does not grow with the rows.
        """
        job, rows = self.find(ref), self.rows(ref, partial=partial)
        wanted = (row for row in rows if (row.error is not None) == errors)
        return (
            escape_line_ends(orjson.dumps(line)) + b"\n"
            for line in self._in_openais_form(job, wanted, endpoint)
        )

    def _in_openais_form(
        self, job: JobRecord, rows: Iterator[ResultRow], endpoint: str | None
    ) -> Iterator[dict[str, Any]]:
        if endpoint is not None and endpoint != RESPONSES:
            for row in rows:
                yield openai_line(row, endpoint=endpoint)
            return
        lines = parse_rows(
            self.storage, job.input_sha256, 0, job.n_rows, defaults=job.params, model=job.model
        )
        for row in rows:
            # both are in input order; some rows may still be missing
            line = next(line for line in lines if line.row == row.row)
            if isinstance(line, BadRow):  # an error has the same form at every endpoint
                yield openai_line(row, endpoint=CHAT)
            else:
                yield openai_line(row, endpoint=line.endpoint, echo=line.echo)

    def _place(self, ref: str, out: Path, *, move: bool) -> None:
        job = self.find(ref)
        try:
            read_manifest(self._folder(job), sha256=job.manifest_sha256)
            export_dataset(self._folder(job), out, move=move)
        except Corrupt:
            self.storage.check()  # if the disk was unmounted, nothing is damaged
            raise

    def _folder(self, job: JobRecord) -> Path:
        if job.dataset_path is not None:
            return self.storage.path(job.dataset_path)
        if job.state.ended:
            raise NotAllowed(f"Job {job.public_id} {job.state} without a dataset: {job.error}")
        raise NotAllowed(
            f"Job {job.public_id} is {job.state}; its dataset is not there yet. Wait for it with "
            f"`batchgen wait {job.public_id}`, or read what is finished with "
            f"`batchgen results {job.public_id} --partial`."
        )

    def _finished(self, job: JobRecord) -> Iterator[ResultRow]:
        position, lost = 0, ""
        while True:
            for saved in self._saved(job):
                if saved.pos_start < position:
                    continue
                if self.storage.size(saved.path) is None and saved.path != lost:
                    lost = saved.path  # a newer checkpoint or a part has replaced it
                    break
                for row in read_results(self.storage, saved.path, sha256=saved.sha256):
                    if saved.pos_start <= row.row < saved.pos_end:
                        yield row
                position = saved.pos_end
            else:
                return

    def _saved(self, job: JobRecord) -> list[SavedSegment]:
        """Return the parts and checkpoints of a job, in input order."""
        # Read checkpoints first: a shard committed meanwhile is then found as a part.
        saved = {one.pos_start: one for one in self.store.leases.checkpoints_of(job.id)}
        for segment in self.store.finalization.segments(job.id):
            if segment.part is not None:
                saved[segment.pos_start] = SavedSegment(
                    pos_start=segment.pos_start,
                    pos_end=segment.pos_end,
                    path=segment.part.path,
                    sha256=segment.part.sha256,
                )
        return [saved[start] for start in sorted(saved)]

    def _part_keys(self, job: JobRecord) -> list[str]:
        segments = self.store.finalization.segments(job.id)
        return [segment.part.path for segment in segments if segment.part]


def row_json(row: ResultRow) -> dict[str, Any]:
    """Return a row as JSON values: the columns of the dataset, `extra` as an object."""
    first = row.choices[0] if row.choices else None
    values: dict[str, Any] = msgspec.to_builtins(row)
    return {
        "row": row.row,
        "custom_id": row.custom_id,
        "response": first.text if first else None,
        "finish_reason": first.finish_reason if first else None,
        **values,
        "created_at": datetime.fromtimestamp(row.created_at / 1e6, UTC).isoformat(),
        "extra": msgspec.json.decode(row.extra) if row.extra else None,
    }

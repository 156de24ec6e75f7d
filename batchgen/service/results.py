"""Results of jobs: their datasets, or the rows committed so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.core.rows import ResultRow
from batchgen.dataset.export import export_dataset
from batchgen.dataset.manifest import MANIFEST, FileEntry, local_path, read_manifest
from batchgen.dataset.reader import rows_of
from batchgen.dataset.streams import openai_lines, row_lines
from batchgen.dataset.streams.arrow_streams import arrow_stream, parquet_stream
from batchgen.dataset.streams.json_columns import text_bytes
from batchgen.dataset.streams.record_batches import ALL, Batches, Config
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Corrupt, NotAllowed
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.service.rows.error_groups import ErrorGroups, read_groups
from batchgen.service.rows.finished_rows import BOTH, FinishedRows
from batchgen.service.rows.requests import RowRequests
from batchgen.service.rows.row_filter import RowFilter
from batchgen.service.rows.row_pages import RowPage, read_lines, read_page
from batchgen.storage.storage import Storage

#: {`errors` of `openai_lines`: the series of the dataset that it means}
_CONFIGS: Final[dict[bool | None, Sequence[Config]]] = {
    None: BOTH,
    False: ("default",),
    True: ("errors",),
}


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

    def files(self, ref: str) -> list[FileEntry]:
        """Return the files of a finished dataset, without its manifest."""
        return read_manifest(self.dataset(ref)).files

    def file(self, ref: str, name: str) -> Path | None:
        """Return the path of a file of a finished dataset; None if it has no file of this name.

        Names are those that the manifest lists, and that of the manifest itself.
        """
        folder = self.dataset(ref)
        listed = {entry.path: local_path(folder, entry) for entry in read_manifest(folder).files}
        return {**listed, MANIFEST: folder / MANIFEST}.get(name)

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
        return rows_of(self.batches(ref, partial=partial))

    def lines(self, ref: str, *, partial: bool = False) -> Iterator[bytes]:
        """Return the rows as JSON Lines, in pieces that hold one or more complete lines.

        No Python object is made for a row, and memory does not grow with the rows.
        """
        found = self.batches(ref, partial=partial, columns=row_lines.COLUMNS)
        return (text_bytes(row_lines.row_lines(batch)) for batch in found if len(batch))

    def openai_lines(
        self,
        ref: str,
        *,
        errors: bool | None,
        endpoint: str | None = None,
        partial: bool = False,
    ) -> Iterator[bytes]:
        """Return OpenAI's output file of a job, or with `errors` its error file, in pieces.

        A piece holds one or more complete lines, each with its line feed. Rows are in input order;
        if `errors` is None, those of both files. `endpoint` is that of every line, as in a batch;
        if it is None, the endpoint of each row is read from the stored input, which is slower. So
        are requests to /v1/responses, because their answers repeat them. With `partial` the file
        holds the rows that are finished so far. Memory does not grow with the rows.
        """
        job, configs = self.find(ref), _CONFIGS[errors]
        found = self.batches(ref, partial=partial, columns=openai_lines.COLUMNS, configs=configs)
        requests = RowRequests(self.storage, job, endpoint)
        return (
            text_bytes(openai_lines.openai_lines(batch, requests.of(batch)))
            for batch in found
            if len(batch)
        )

    def arrow(self, ref: str, *, partial: bool = False) -> Iterator[bytes]:
        """Return the rows as an Arrow IPC stream, in pieces."""
        return arrow_stream(self.batches(ref, partial=partial))

    def parquet(self, ref: str, *, partial: bool = False) -> Iterator[bytes]:
        """Return the rows as one Parquet file, in pieces."""
        return parquet_stream(self.batches(ref, partial=partial))

    def page(self, ref: str, wanted: RowFilter, *, after: int = -1, limit: int = 100) -> RowPage:
        """Return the next finished rows with a number above `after` that fit, at most `limit`.

        A row that is finished while a caller goes from page to page is seen if its number is above
        those seen already.
        """
        return read_page(self._finished, self.find(ref), wanted, after=after, limit=limit)

    def line(self, ref: str, number: int) -> bytes | None:
        """Return the JSON of one finished row; None while it is not finished, or has no number."""
        lines = read_lines(self._finished, self.find(ref), [number])
        return next(lines, None)

    def error_groups(self, ref: str) -> ErrorGroups:
        """Return the failed rows so far in groups, the largest first."""
        return read_groups(self._finished, self.find(ref))

    def batches(
        self,
        ref: str,
        *,
        partial: bool = False,
        columns: Sequence[str] = ALL,
        configs: Sequence[Config] = BOTH,
    ) -> Batches:
        """Return the rows as record batches of a few megabytes, in input order."""
        job = self.find(ref)
        if not partial:
            self._folder(job)
        return self._finished.batches(job, columns=columns, configs=configs)

    @property
    def _finished(self) -> FinishedRows:
        return FinishedRows(store=self.store, storage=self.storage)

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

    def _part_keys(self, job: JobRecord) -> list[str]:
        segments = self.store.finalization.segments(job.id)
        return [segment.part.path for segment in segments if segment.part]

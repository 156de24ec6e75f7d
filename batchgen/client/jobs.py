"""The jobs of a server, for `batchgen.Client`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from batchgen.client import calls, reading
from batchgen.client.bodies import UploadBody
from batchgen.client.connection import Connection
from batchgen.client.downloads import Download
from batchgen.client.job_views import needs_workers, view_of
from batchgen.client.submissions import submission_of
from batchgen.dataset.manifest import FileEntry
from batchgen.errors import KeyRefused
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.library.dataset import Dataset
from batchgen.library.prompts import Prompts, open_prompts
from batchgen.service.views import JobView

INTERVAL: Final = 1.0  # seconds between two looks at a job


class Jobs:
    """Submits, follows and ends jobs; a job is named by its id, a part of it, or its name.

    Every method raises the errors of `batchgen.errors` that the same operation raises in a home.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        prompts: Prompts,
        *,
        model: str,
        name: str | None = None,
        priority: int = 0,
        not_before: str | None = None,
        window: str | None = None,
        deadline: str | None = None,
        on_invalid: str = "refuse",
        columns: Sequence[str] = (),
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> JobView:
        """Send prompts to the server and queue a job on them; it is durable on return.

        job = client.jobs.create("prompts.jsonl", model="smollm2-135m", temperature=0)

        The prompts are sent as a stream. If the connection breaks, they are sent again, and at most
        one job is created.

        Args:
            prompts: path of a JSON Lines file, binary file, iterable of dicts, frame or table.
            model: name of a model of the server.
            name: name that finds the job later; of several jobs, the newest has it.
            priority: jobs with a higher number go first.
            not_before: earliest start, such as "22:00", "+2h" or RFC 3339.
            window: hours of the day, such as "22:00-06:00 Europe/Berlin".
            deadline: moment at which rows without an answer become error rows.
            on_invalid: "refuse", or "row-error" to keep unusable prompts as error rows.
            columns: fields of the rows that are data, although they are named like a parameter.
            idempotency_key: calls with the same key and prompts create one job.
            **parameters: decoding parameters of every row that does not set them.
        """
        submission = submission_of(
            parameters,
            columns,
            model=model,
            name=name,
            priority=priority,
            not_before=not_before,
            window=window,
            deadline=deadline,
            on_invalid=on_invalid,
            idempotency_key=idempotency_key,
        )
        with open_prompts(prompts) as source, UploadBody(source) as body:
            return self._view(self._connection.send(calls.create(submission), body=body))

    def retrieve(self, job: str) -> JobView:
        """Return the current view of a job."""
        return self._view(self._connection.send(calls.get(calls.job_path(self._ref(job)))))

    def list(
        self, *, state: str | None = None, name: str | None = None, limit: int | None = None
    ) -> Iterator[JobView]:
        """Yield jobs, newest first; pages are fetched as they are needed."""
        pages = calls.JobPages(state=state, name=name, limit=limit)
        workers = self._workers() if pages.more else ()
        while pages.more:
            for value in pages.take(self._connection.send(pages.next_call())):
                yield view_of(value, self._connection.url, workers)

    def pause(self, job: str) -> JobView:
        """Hold a job back; its finished rows are kept. Raises NotAllowed if it has ended."""
        return self._act(job, "pause")

    def resume(self, job: str) -> JobView:
        """Let a paused job go on; raise NotAllowed if it has ended."""
        return self._act(job, "resume")

    def cancel(self, job: str) -> JobView:
        """Stop a job for good; rows without an answer become error rows."""
        return self._act(job, "cancel")

    def delete(self, job: str) -> None:
        """Remove a job that has ended, its files and its input. Twice is no error."""
        self._connection.send(calls.delete(self._ref(job)))

    def wait(
        self,
        job: str,
        *,
        timeout: float | None = None,
        progress: Callable[[JobView], None] | None = None,
        interval: float = INTERVAL,
    ) -> JobView:
        """Return the job once it has ended; `progress` is called with each view until then.

        A job that has ended may have failed rows: see `succeeded`. Raises TimeoutError after
        `timeout` seconds; the job goes on.
        """
        give_up = float("inf") if timeout is None else time.monotonic() + timeout
        view = self.retrieve(job)
        job = view.id  # a name may mean another job later
        while True:
            if progress is not None:
                progress(view)
            if view.has_ended:
                return view
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Job {job} is still {view.state} after {timeout:g} s.")
            time.sleep(min(interval, left))
            view = self.retrieve(job)

    def results(self, job: str, out: str | os.PathLike[str] | None = None) -> Dataset:
        """Download the dataset of a job and return it; each file is checked by its SHA-256 sum.

        It stays in the folder `out`. Without `out` it lies in a temporary folder, which is removed
        with the returned object. Raises NotAllowed while there is no dataset.
        """
        if out is not None:
            return Dataset(self._download(job, Path(out).expanduser()))
        with reading.temporary_folder() as folder:
            return reading.TemporaryDataset(self._download(job, folder / "dataset"), folder)

    def rows(self, job: str, *, partial: bool = False) -> Iterator[dict[str, Any]]:
        """Yield every row as a dict, answered and failed ones in input order, as they arrive.

        With `partial` these are the rows that are finished so far.
        """
        call = reading.lines(self._ref(job), "jsonl", partial=partial)
        with self._connection.stream(call) as response:
            for line in response.iter_lines():
                yield orjson.loads(line)

    def manifest(self, job: str) -> bytes:
        """Return the manifest of a dataset, as it is on disk; raise NotAllowed if there is none."""
        content = bytearray()
        self._connection.download(reading.manifest(job), lambda chunks: _keep(chunks, content))
        return bytes(content)

    def _ref(self, job: str) -> str:
        """Return a name that fits into a path: that of a job, or the id of the job named so."""
        if calls.is_segment(job):
            return job
        for view in self.list(name=job, limit=1):
            return view.id
        raise calls.no_such_job(job)

    def _download(self, ref: str, out: Path) -> Path:
        job = self.retrieve(ref).job  # a name may mean another job later
        manifest = self.manifest(job.public_id)
        download = Download(out, manifest, sha256=job.manifest_sha256)
        for entry in download.missing():
            self._fetch(job.public_id, entry, download)
        return download.finish()

    def _fetch(self, job: str, entry: FileEntry, download: Download) -> None:
        def receive(chunks: Iterator[bytes]) -> None:
            with download.receiving(entry) as file:
                file.writelines(chunks)

        self._connection.download(reading.file(job, entry.path), receive)

    def _act(self, job: str, action: str) -> JobView:
        return self._view(self._connection.send(calls.act(self._ref(job), action)))

    def _view(self, value: Any) -> JobView:
        workers = self._workers() if needs_workers(value) else ()
        return view_of(value, self._connection.url, workers)

    def _workers(self) -> tuple[WorkerRecord, ...]:
        try:
            return self._connection.send(calls.workers())
        except KeyRefused:  # a key that may only submit
            return ()


def _keep(chunks: Iterator[bytes], content: bytearray) -> None:
    content[:] = b"".join(chunks)

"""The jobs of a server, for `batchgen.AsyncClient`; see `jobs` for what each argument means."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import orjson
from anyio import to_thread

from batchgen.client import calls, reading
from batchgen.client.async_connection import AsyncConnection
from batchgen.client.bodies import UploadBody
from batchgen.client.downloads import Download
from batchgen.client.job_views import needs_workers, view_of
from batchgen.client.jobs import INTERVAL
from batchgen.client.submissions import submission_of
from batchgen.dataset.manifest import FileEntry
from batchgen.errors import KeyRefused
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.library.dataset import Dataset
from batchgen.library.prompts import Prompts, open_prompts
from batchgen.service.views import JobView


class AsyncJobs:
    """Submits, follows and ends jobs, as `Jobs` does; files are read and written in threads."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(
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
        """Send prompts to the server and queue a job on them; it is durable on return."""
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
            return await self._view(
                await self._connection.send(calls.create(submission), body=body)
            )

    async def retrieve(self, job: str) -> JobView:
        """Return the current view of a job."""
        path = calls.job_path(await self._ref(job))
        return await self._view(await self._connection.send(calls.get(path)))

    async def list(
        self, *, state: str | None = None, name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[JobView]:
        """Yield jobs, newest first; pages are fetched as they are needed."""
        pages = calls.JobPages(state=state, name=name, limit=limit)
        workers = await self._workers() if pages.more else ()
        while pages.more:
            for value in pages.take(await self._connection.send(pages.next_call())):
                yield view_of(value, self._connection.url, workers)

    async def pause(self, job: str) -> JobView:
        """Hold a job back; its finished rows are kept. Raises NotAllowed if it has ended."""
        return await self._act(job, "pause")

    async def resume(self, job: str) -> JobView:
        """Let a paused job go on; raise NotAllowed if it has ended."""
        return await self._act(job, "resume")

    async def cancel(self, job: str) -> JobView:
        """Stop a job for good; rows without an answer become error rows."""
        return await self._act(job, "cancel")

    async def delete(self, job: str) -> None:
        """Remove a job that has ended, its files and its input. Twice is no error."""
        await self._connection.send(calls.delete(await self._ref(job)))

    async def wait(
        self,
        job: str,
        *,
        timeout: float | None = None,
        progress: Callable[[JobView], None] | None = None,
        interval: float = INTERVAL,
    ) -> JobView:
        """Return the job once it has ended; `progress` is called with each view until then.

        Raises TimeoutError after `timeout` seconds; the job goes on.
        """
        give_up = float("inf") if timeout is None else time.monotonic() + timeout
        view = await self.retrieve(job)
        job = view.id  # a name may mean another job later
        while True:
            if progress is not None:
                progress(view)
            if view.has_ended:
                return view
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Job {job} is still {view.state} after {timeout:g} s.")
            await anyio.sleep(min(interval, left))
            view = await self.retrieve(job)

    async def results(self, job: str, out: str | os.PathLike[str] | None = None) -> Dataset:
        """Download the dataset of a job to `out`, or to a temporary folder, and return it."""
        if out is not None:
            return Dataset(await self._download(job, Path(out).expanduser()))
        with reading.temporary_folder() as folder:
            path = await self._download(job, folder / "dataset")
            return reading.TemporaryDataset(path, folder)

    async def rows(self, job: str, *, partial: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Yield every row as a dict, answered and failed ones in input order, as they arrive."""
        call = reading.lines(await self._ref(job), "jsonl", partial=partial)
        async with self._connection.stream(call) as response:
            async for line in response.aiter_lines():
                yield orjson.loads(line)

    async def manifest(self, job: str) -> bytes:
        """Return the manifest of a dataset, as it is on disk; raise NotAllowed if there is none."""
        content = bytearray()

        async def receive(chunks: AsyncIterator[bytes]) -> None:
            content.clear()
            async for chunk in chunks:
                content.extend(chunk)

        await self._connection.download(reading.manifest(job), receive)
        return bytes(content)

    async def _ref(self, job: str) -> str:
        if calls.is_segment(job):
            return job
        async for view in self.list(name=job, limit=1):
            return view.id
        raise calls.no_such_job(job)

    async def _download(self, ref: str, out: Path) -> Path:
        job = (await self.retrieve(ref)).job  # a name may mean another job later
        manifest = await self.manifest(job.public_id)
        begin = functools.partial(Download, out, manifest, sha256=job.manifest_sha256)
        download = await to_thread.run_sync(begin)
        for entry in await to_thread.run_sync(lambda: list(download.missing())):
            await self._fetch(job.public_id, entry, download)
        return await to_thread.run_sync(download.finish)

    async def _fetch(self, job: str, entry: FileEntry, download: Download) -> None:
        async def receive(chunks: AsyncIterator[bytes]) -> None:
            with download.receiving(entry) as file:
                async for chunk in chunks:
                    await to_thread.run_sync(file.write, chunk)

        await self._connection.download(reading.file(job, entry.path), receive)

    async def _act(self, job: str, action: str) -> JobView:
        call = calls.act(await self._ref(job), action)
        return await self._view(await self._connection.send(call))

    async def _view(self, value: Any) -> JobView:
        workers = await self._workers() if needs_workers(value) else ()
        return view_of(value, self._connection.url, workers)

    async def _workers(self) -> tuple[WorkerRecord, ...]:
        try:
            return await self._connection.send(calls.workers())
        except KeyRefused:  # a key that may only submit
            return ()

"""A server as the command sees it: the operations of `batchgen.service.Service`, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from batchgen.client import calls, reading
from batchgen.client.address import Address
from batchgen.client.attempts import OnWait
from batchgen.client.bodies import UploadBody
from batchgen.client.connection import Connection
from batchgen.client.job_views import dataset_address, view_of
from batchgen.client.jobs import Jobs
from batchgen.client.models import Model, model_named
from batchgen.errors import JobNotFound
from batchgen.jobs.records.job_records import JobRecord, WorkerRecord
from batchgen.service.submission import Notice, Submission
from batchgen.service.views import JobView

HURRY: Final = 2.0  # seconds of silence where a shell waits for words
PUBLIC_ID: Final = re.compile("[0-9a-f]{32}")


class Remote:
    """Operates on the jobs of one tenant of a server. The methods are those of Service."""

    #: The command that starts a worker, on the machine of the server.
    starter: Final = "batchgen worker"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs = Jobs(connection)

    @classmethod
    def at(cls, address: Address, *, on_wait: OnWait, hurried: bool = False) -> Remote:
        """Return the operations of a server; `on_wait` hears of each wait for another attempt.

        With `hurried` there is one attempt, and it is short.
        """
        if hurried:
            return cls(Connection(address, retries=0, timeout=HURRY))
        return cls(Connection(address, on_wait=on_wait))

    @cached_property
    def models(self) -> RemoteModels:
        """The models of the server."""
        return RemoteModels(self._connection)

    @cached_property
    def results(self) -> RemoteResults:
        """The results of jobs."""
        return RemoteResults(self._connection, self._jobs)

    def submit(
        self, source: BinaryIO, submission: Submission, *, notice: Notice | None = None
    ) -> JobRecord:
        """Send the rows of `source` and queue a job on them; it is durable on return."""
        with UploadBody(source) as body:
            value = self._connection.send(calls.create(submission), body=body)
        for text in value.get("notices") or () if notice else ():
            assert notice is not None
            notice(text)
        return self._record(value)

    def find(self, ref: str) -> list[JobRecord]:
        """Return the jobs that `ref` names, newest first; raise JobNotFound if there is none."""
        if not PUBLIC_ID.fullmatch(ref) and (named := self._named(ref)):
            return named
        if not calls.is_segment(ref):
            raise calls.no_such_job(ref)
        return [self._record(self._connection.send(calls.get(calls.job_path(ref))))]

    def job(self, ref: str) -> JobRecord:
        """Return the newest job that `ref` names."""
        return self.find(ref)[0]

    def records(self, *, state: str | None = None, limit: int = 100) -> list[JobRecord]:
        """Return jobs, newest first."""
        return [view.job for view in self.jobs(state=state, limit=limit)]

    def jobs(self, *, state: str | None = None, limit: int = 100) -> list[JobView]:
        """Return views of several jobs, newest first."""
        return list(islice(self._jobs.list(state=state, limit=limit), limit))

    def status(self, ref: str) -> JobView:
        """Return a view of one job."""
        return self._jobs.retrieve(ref)

    def pause(self, ref: str) -> JobView:
        """Pause a job; raise NotAllowed if it has ended."""
        return self._jobs.pause(ref)

    def resume(self, ref: str) -> JobView:
        """Resume a paused job; raise NotAllowed if it has ended."""
        return self._jobs.resume(ref)

    def cancel(self, ref: str) -> JobView:
        """Stop a job for good; a coordinator of the server writes its dataset."""
        return self._jobs.cancel(ref)

    def removable(self, ref: str) -> str:
        """Return the id of a job; that of a removed job is taken as it is."""
        try:
            return self.job(ref).public_id
        except JobNotFound:
            if PUBLIC_ID.fullmatch(ref):
                return ref  # `remove` knows whether there was such a job
            raise

    def remove(self, ref: str) -> None:
        """Delete a job that has ended; raise NotAllowed if it may go on."""
        self._jobs.delete(ref)

    def finish_removals(self) -> None:
        """Do nothing: the server does it."""

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that have sent a heartbeat recently."""
        return self._connection.send(calls.workers())

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _named(self, name: str) -> list[JobRecord]:
        pages = calls.JobPages(state=None, name=name, limit=None)
        found = []
        while pages.more:
            page = self._connection.send(pages.next_call())
            found += [self._record(value) for value in pages.take(page)]
        return found

    def _record(self, value: Mapping[str, Any]) -> JobRecord:
        return view_of(value, self._connection.url).job


class RemoteModels:
    """The models of a server; `get` raises UnknownModel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return [model.name for model in self.list()]

    def list(self) -> list[Model]:
        """Return all models, by name."""
        return self._connection.send(calls.models())

    def get(self, name: str) -> Model:
        """Return one model."""
        return model_named(name, self.list())


class RemoteResults:
    """The results of jobs of a server; the methods are those of Results."""

    def __init__(self, connection: Connection, jobs: Jobs) -> None:
        self._connection = connection
        self._jobs = jobs

    def dataset(self, ref: str) -> str:
        """Return the address of a finished dataset; raise NotAllowed while there is none."""
        self._jobs.manifest(ref)
        return dataset_address(self._connection.url, ref)

    def export(self, ref: str, out: Path) -> Path:
        """Download a finished dataset to a folder and return the folder."""
        self._jobs.results(ref, out)
        return out

    def verify(self, ref: str) -> list[str]:
        """Return what the server finds when it compares a dataset with its manifest."""
        return self._connection.send(reading.verification(ref))

    def parts(self, ref: str) -> list[str]:
        """Return the address of the finished rows: a server has no folder to read."""
        return [dataset_address(self._connection.url, ref) + "&partial=true"]

    def lines(self, ref: str, *, partial: bool = False) -> Iterator[bytes]:
        """Return the rows as JSON Lines, in pieces of whole lines or of any size."""
        return self._pieces(ref, "jsonl", partial=partial)

    def openai_lines(
        self, ref: str, *, errors: bool | None, partial: bool = False
    ) -> Iterator[bytes]:
        """Return OpenAI's output and error file in one, in pieces; `errors` must be None."""
        assert errors is None
        return self._pieces(ref, "openai", partial=partial)

    def _pieces(self, ref: str, form: str, *, partial: bool) -> Iterator[bytes]:
        with self._connection.stream(reading.lines(ref, form, partial=partial)) as response:
            yield from response.iter_bytes()

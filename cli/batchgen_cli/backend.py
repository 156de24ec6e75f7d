"""The operations that commands need: those of a home here, or those of a server over HTTP.

                 ┌─ batchgen.service.Service        a home on this machine
App.service ─────┤
                 └─ batchgen.client.remote.Remote   the server of BATCHGEN_URL
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from batchgen.jobs.records.job_records import JobRecord, WorkerRecord
    from batchgen.service import JobView
    from batchgen.service.submission import Notice, Submission


class Model(Protocol):
    """A registered model, as it is shown."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        ...

    @property
    def architecture(self) -> str:
        """The transformers class."""
        ...

    @property
    def dtype(self) -> str:
        """The type of the stored weights."""
        ...

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and answer together."""
        ...

    @property
    def sha256(self) -> str:
        """The sum that pins the files."""
        ...

    @property
    def chat_template(self) -> bool:
        """True if rows with `messages` can be answered."""
        ...

    @property
    def source(self) -> str:
        """The source that it was imported from."""
        ...

    @property
    def created_at(self) -> str:
        """When it was imported."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        ...


class Models(Protocol):
    """The registered models; `get` raises UnknownModel."""

    def names(self) -> Sequence[str]:
        """Return the names, sorted."""
        ...

    def list(self) -> Sequence[Model]:
        """Return all, by name."""
        ...

    def get(self, name: str) -> Model:
        """Return one model."""
        ...


class Results(Protocol):
    """The results of jobs; the methods are described in `batchgen.service.results.Results`."""

    def dataset(self, ref: str) -> Path | str:
        """Return the folder of a finished dataset, or its address on the server."""
        ...

    def export(self, ref: str, out: Path) -> Path:
        """Copy a finished dataset to a folder of this machine."""
        ...

    def verify(self, ref: str) -> list[str]:
        """Return one sentence for each file that does not agree with the manifest."""
        ...

    def parts(self, ref: str) -> Sequence[Path | str]:
        """Return the places of the parts committed so far."""
        ...

    def lines(self, ref: str, *, partial: bool = False) -> Iterator[bytes]:
        """Return the rows as JSON Lines, in pieces of complete lines."""
        ...

    def openai_lines(
        self, ref: str, *, errors: bool | None, partial: bool = False
    ) -> Iterator[bytes]:
        """Return OpenAI's output file, its error file, or with None both, in pieces."""
        ...


class Backend(Protocol):
    """The operations on jobs; the methods are described in `batchgen.service.Service`."""

    @property
    def models(self) -> Models:
        """The registered models."""
        ...

    @property
    def results(self) -> Results:
        """The results of jobs."""
        ...

    @property
    def starter(self) -> str:
        """The command that starts a worker."""
        ...

    def submit(
        self, source: BinaryIO, submission: Submission, *, notice: Notice | None = None
    ) -> JobRecord:
        """Queue a job on the rows of `source`."""
        ...

    def find(self, ref: str) -> Sequence[JobRecord]:
        """Return the jobs that `ref` names, newest first."""
        ...

    def job(self, ref: str) -> JobRecord:
        """Return the newest job that `ref` names."""
        ...

    def records(self, *, state: str | None = None, limit: int = 100) -> Sequence[JobRecord]:
        """Return jobs, newest first."""
        ...

    def jobs(self, *, state: str | None = None, limit: int = 100) -> Sequence[JobView]:
        """Return views of jobs, newest first."""
        ...

    def status(self, ref: str) -> JobView:
        """Return a view of one job."""
        ...

    def pause(self, ref: str) -> JobView:
        """Hold a job back."""
        ...

    def resume(self, ref: str) -> JobView:
        """Let a paused job go on."""
        ...

    def cancel(self, ref: str) -> JobView:
        """Stop a job for good."""
        ...

    def removable(self, ref: str) -> str:
        """Return the id of a job that `remove` takes, be it removed already."""
        ...

    def remove(self, ref: str) -> None:
        """Delete a job that has ended."""
        ...

    def finish_removals(self) -> None:
        """Delete the files of removed jobs whose removal was interrupted."""
        ...

    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are alive."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...

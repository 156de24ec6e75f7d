"""`batchgen.Client`: the jobs, models and workers of a server."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchgen.client import calls
from batchgen.client.address import address_of
from batchgen.client.attempts import RETRIES
from batchgen.client.connection import TIMEOUT, Connection
from batchgen.client.jobs import Jobs
from batchgen.client.models import Model, model_named
from batchgen.jobs.records.job_records import WorkerRecord

if TYPE_CHECKING:
    import httpx2


class Client:
    """Works on a batchgen server.

    with batchgen.Client("https://batchgen.example", api_key="bg_…") as client:
        job = client.jobs.create("prompts.jsonl", model="smollm2-135m", temperature=0)
        client.jobs.wait(job.id)
        print(client.jobs.results(job.id).to_pandas())

    Args:
        url: address of the server; None means BATCHGEN_URL, the profile or the settings files.
        api_key: key for the server; None means BATCHGEN_API_KEY, or without `url` that of the
            profile or the settings files.
        profile: name of the table [profile.NAME] of the settings files to take both from.
        insecure: accept http:// to another machine, which sends the key in the clear.
        retries: attempts after the first, where a request may succeed later.
        timeout: seconds of silence until an attempt has failed.
        transport: another transport of httpx2, such as one into an app in the same process.

    Raises InvalidParameter if no server is named or the address cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        profile: str | None = None,
        insecure: bool = False,
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        address = address_of(url, api_key=api_key, profile=profile, insecure=insecure)
        self._connection = Connection(
            address, retries=retries, timeout=timeout, transport=transport
        )
        self.jobs = Jobs(self._connection)
        self.models = Models(self._connection)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._connection.url

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that have sent a heartbeat recently."""
        return self._connection.send(calls.workers())

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Models:
    """The models of a server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> list[Model]:
        """Return the models, by name."""
        return self._connection.send(calls.models())

    def retrieve(self, name: str) -> Model:
        """Return one model; raise UnknownModel."""
        return model_named(name, self.list())

"""`batchgen.AsyncClient`: the jobs, models and workers of a server, with an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchgen.client import calls
from batchgen.client.address import address_of
from batchgen.client.async_connection import AsyncConnection
from batchgen.client.async_jobs import AsyncJobs
from batchgen.client.attempts import RETRIES
from batchgen.client.connection import TIMEOUT
from batchgen.client.models import Model, model_named
from batchgen.jobs.records.job_records import WorkerRecord

if TYPE_CHECKING:
    import httpx2


class AsyncClient:
    """Works on a batchgen server; arguments and methods are those of `batchgen.Client`.

    async with batchgen.AsyncClient() as client:
        job = await client.jobs.create("prompts.jsonl", model="smollm2-135m")
        await client.jobs.wait(job.id)
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
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        address = address_of(url, api_key=api_key, profile=profile, insecure=insecure)
        self._connection = AsyncConnection(
            address, retries=retries, timeout=timeout, transport=transport
        )
        self.jobs = AsyncJobs(self._connection)
        self.models = AsyncModels(self._connection)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._connection.url

    async def workers(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that have sent a heartbeat recently."""
        return await self._connection.send(calls.workers())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncModels:
    """The models of a server."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(self) -> list[Model]:
        """Return the models, by name."""
        return await self._connection.send(calls.models())

    async def retrieve(self, name: str) -> Model:
        """Return one model; raise UnknownModel."""
        return model_named(name, await self.list())

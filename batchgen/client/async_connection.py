"""A connection to one server for programs with an event loop; see `connection`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx2
import tenacity

from batchgen.client import attempts
from batchgen.client.address import Address
from batchgen.client.bodies import UploadBody
from batchgen.client.calls import Answer, Call
from batchgen.client.connection import TIMEOUT, client_options, decoded, request_of
from batchgen.errors import ServerUnavailable

Result = TypeVar("Result")


class AsyncConnection:
    """Sends calls to a server and returns their answers; the errors are those of Connection."""

    def __init__(
        self,
        address: Address,
        *,
        retries: int = attempts.RETRIES,
        timeout: float = TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = address.url
        self._retries = retries
        self._http = httpx2.AsyncClient(**client_options(address, timeout), transport=transport)

    async def send(self, call: Call[Answer], *, body: UploadBody | None = None) -> Answer:
        """Send a call, with `body` if it has one, and return its answer."""

        async def attempt() -> Answer:
            content = body.achunks() if body else None
            try:
                response = await self._http.send(request_of(self._http, call, content, body))
            except httpx2.HTTPError as error:
                raise attempts.unreachable(error, self.url) from None
            return decoded(response, call)

        return await self.repeat(attempt)

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[httpx2.Response]:
        """Open the answer of a call as a stream; a break while it is read is ServerUnavailable."""

        async def attempt() -> httpx2.Response:
            try:
                response = await self._http.send(request_of(self._http, call), stream=True)
                if response.is_error:
                    await response.aread()
                    await response.aclose()
            except httpx2.HTTPError as error:
                raise attempts.unreachable(error, self.url) from None
            if response.is_error:
                raise attempts.failure_of(response)
            return response

        response = await self.repeat(attempt)
        try:
            yield response
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise attempts.unreachable(error, self.url).error from None
        finally:
            await response.aclose()

    async def download(
        self, call: Call[Any], receive: Callable[[AsyncIterator[bytes]], Awaitable[None]]
    ) -> None:
        """Give the answer's bytes to `receive`, again from the first one after a break."""

        async def attempt() -> None:
            try:
                async with self.stream(call) as response:
                    await receive(response.aiter_bytes())
            except ServerUnavailable as error:
                raise attempts.Failed(error, may_pass=True) from None

        await self.repeat(attempt)

    async def repeat(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return `await attempt()`; while its failure may pass, wait and call it again."""
        retrying = tenacity.AsyncRetrying(
            **attempts.policy(self._retries, None), sleep=lambda seconds: anyio.sleep(seconds)
        )
        try:
            return await retrying(attempt)
        except attempts.Failed as failed:
            raise failed.error from failed.error.__cause__

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

"""A blocking connection to one server: it sends calls, again where that may help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any, Final, TypeVar

import httpx2
import tenacity

from batchgen import __version__
from batchgen.client import attempts
from batchgen.client.address import Address
from batchgen.client.bodies import UploadBody
from batchgen.client.calls import ROOT, Answer, Call
from batchgen.errors import ServerUnavailable

TIMEOUT: Final = 60.0  # seconds of silence
Result = TypeVar("Result")


class Connection:
    """Sends calls to a server and returns their answers.

    Every method raises the errors of `batchgen.errors` that the same operation raises in a home,
    KeyRefused, or ServerUnavailable after the last attempt.
    """

    def __init__(
        self,
        address: Address,
        *,
        retries: int = attempts.RETRIES,
        timeout: float = TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        on_wait: attempts.OnWait | None = None,
    ) -> None:
        self.url = address.url
        self._on_wait = on_wait
        self._retries = retries
        self._http = httpx2.Client(**client_options(address, timeout), transport=transport)

    def send(self, call: Call[Answer], *, body: UploadBody | None = None) -> Answer:
        """Send a call, with `body` if it has one, and return its answer."""

        def attempt() -> Answer:
            content = body.chunks() if body else None
            try:
                response = self._http.send(request_of(self._http, call, content, body))
            except httpx2.HTTPError as error:
                raise attempts.unreachable(error, self.url) from None
            return decoded(response, call)

        return self.repeat(attempt)

    @contextmanager
    def stream(self, call: Call[Any]) -> Iterator[httpx2.Response]:
        """Open the answer of a call as a stream; a break while it is read is ServerUnavailable."""

        def attempt() -> httpx2.Response:
            try:
                response = self._http.send(request_of(self._http, call), stream=True)
                if response.is_error:
                    response.read()
                    response.close()
            except httpx2.HTTPError as error:
                raise attempts.unreachable(error, self.url) from None
            if response.is_error:
                raise attempts.failure_of(response)
            return response

        response = self.repeat(attempt)
        try:
            yield response
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise attempts.unreachable(error, self.url).error from None
        finally:
            response.close()

    def download(self, call: Call[Any], receive: Callable[[Iterator[bytes]], None]) -> None:
        """Give the answer's bytes to `receive`, again from the first one after a break."""

        def attempt() -> None:
            try:
                with self.stream(call) as response:
                    receive(response.iter_bytes())
            except ServerUnavailable as error:
                raise attempts.Failed(error, may_pass=True) from None

        self.repeat(attempt)

    def repeat(self, attempt: Callable[[], Result]) -> Result:
        """Return `attempt()`; while it raises Failed that may pass, wait and call it again."""
        retrying = tenacity.Retrying(
            **attempts.policy(self._retries, self._on_wait), sleep=lambda seconds: sleep(seconds)
        )
        try:
            return retrying(attempt)
        except attempts.Failed as failed:
            raise failed.error from failed.error.__cause__

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def client_options(address: Address, timeout: float) -> dict[str, Any]:
    """Return the arguments of httpx2's clients. Redirects are not followed: the key is for one."""
    headers = {"accept": "application/json", "user-agent": f"batchgen/{__version__}"}
    if address.api_key:
        headers["authorization"] = f"Bearer {address.api_key}"
    return {
        "base_url": address.url + ROOT,
        "headers": headers,
        "timeout": timeout,
        "follow_redirects": False,
    }


def request_of(
    http: httpx2.Client | httpx2.AsyncClient,
    call: Call[Any],
    content: Any = None,
    body: UploadBody | None = None,
) -> httpx2.Request:
    """Return the request of a call; `content` is the body as chunks."""
    headers = dict(call.headers)
    if body is not None:
        headers["content-type"] = "application/x-ndjson"
        if body.size is not None:
            headers["content-length"] = str(body.size)
    params = {name: _text(value) for name, value in call.params.items()}
    return http.build_request(
        call.method,
        call.path,
        params=params,
        headers=headers,
        content=content,
        timeout=http.timeout if call.timeout is None else call.timeout,
    )


def decoded(response: httpx2.Response, call: Call[Answer]) -> Answer:
    """Return the answer of a call; raise Failed."""
    if not response.is_success:
        raise attempts.failure_of(response)
    try:
        value = response.json() if response.content else None
    except ValueError:
        raise attempts.failure_of(response) from None
    return call.decode(value)


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

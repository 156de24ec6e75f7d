"""Sends one request to an endpoint and returns its whole answer, or the reason why there is none.

No redirect is followed, no proxy of the environment is used, certificates are verified, and an
answer is read up to a bound. A failure is a value of `Failure`, because each has a consequence of
its own.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from time import time
from types import TracebackType
from typing import Any, Self

import httpx2
import msgspec

from batchgen.endpoints.config import EndpointConfig
from batchgen.endpoints.key import ApiKey
from batchgen.errors import InvalidParameter

CONNECT_TIMEOUT = 10.0  # seconds
LONGEST_WAIT = 3600.0  # seconds that a Retry-After may ask for
SPARE = 4  # connections for questions about the endpoint itself
JSON = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class Failure(Enum):
    """The reason why a request has no HTTP answer."""

    UNREACHED = auto()  #: The request was not sent: refused, no such host, no TLS.
    BROKEN = auto()  #: The connection ended before the answer did.
    TIMEOUT = auto()  #: No answer came within the time for a request.
    TOO_LARGE = auto()  #: The answer has more bytes than one may have.


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The outcome of one request: an HTTP answer, or a failure with its reason."""

    status: int = 0
    body: bytes = b""
    headers: httpx2.Headers = field(default_factory=httpx2.Headers)
    failure: Failure | None = None
    # For a person; it quotes no prompt.
    reason: str = ""

    def __repr__(self) -> str:  # answers are user data: never in a log
        return f"Reply(status={self.status}, failure={self.failure})"

    @property
    def retry_after(self) -> float | None:
        """The seconds that the endpoint asks to wait, None if it does not say."""
        text = self.headers.get("retry-after", "").strip()
        if text.isdigit():
            return min(float(text[:9]), LONGEST_WAIT)
        try:
            at = parsedate_to_datetime(text).timestamp()
        except ValueError:
            return None
        return min(max(0.0, at - time()), LONGEST_WAIT)

    def json(self) -> Any:
        """Return the body as JSON; raise msgspec.DecodeError."""
        try:
            return msgspec.json.decode(self.body)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(type(error).__name__)) from None


class Connection:
    """A pool of connections to one endpoint, for one event loop.

    async with Connection(config) as connection:
        reply = await connection.post("/chat/completions", b"{}")
    """

    def __init__(self, config: EndpointConfig) -> None:
        """Read the key and the certificates; raise InvalidParameter."""
        self.endpoint = config.endpoint
        self.key = ApiKey(config.endpoint)
        self._config = config
        most = config.endpoint.max_concurrency + SPARE
        self._client = httpx2.AsyncClient(
            verify=_certificates(config.ca_file),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(config.timeout, connect=CONNECT_TIMEOUT, pool=None),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def post(self, path: str, body: bytes, *, timeout: float | None = None) -> Reply:
        """Send a JSON body to a path below the endpoint's base URL."""
        return await self._ask("POST", self.endpoint.url + path, body, timeout)

    async def get(self, path: str, *, timeout: float, beside: bool = False) -> Reply:
        """Ask for a path below the base URL; with `beside`, below the root of the server."""
        root = str(httpx2.URL(self.endpoint.url).join("/")).rstrip("/")
        return await self._ask("GET", (root if beside else self.endpoint.url) + path, None, timeout)

    async def _ask(self, method: str, url: str, body: bytes | None, timeout: float | None) -> Reply:
        headers = {**JSON, **self.key.headers}
        try:
            async with (
                asyncio.timeout(timeout or self._config.timeout),
                self._client.stream(method, url, content=body, headers=headers) as response,
            ):
                return await self._read(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
            return Reply(failure=Failure.UNREACHED, reason=_why_unreached(error))
        except (TimeoutError, httpx2.TimeoutException):
            waited = timeout or self._config.timeout
            return Reply(failure=Failure.TIMEOUT, reason=f"no answer came within {waited:g} s")
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            reason = f"the connection ended before the answer did ({type(error).__name__})"
            return Reply(failure=Failure.BROKEN, reason=reason)

    async def _read(self, response: httpx2.Response) -> Reply:
        most = self._config.max_answer_bytes
        body = bytearray()
        # raw: a compressed answer could be any number of times as large
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                reason = f"the answer has more than {most:,} bytes"
                return Reply(failure=Failure.TOO_LARGE, reason=reason)
        return Reply(status=response.status_code, body=bytes(body), headers=response.headers)


def _certificates(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidParameter(
            f"The certificates in {path} cannot be read: {error}.", param="endpoint.ca_file"
        ) from error


def _why_unreached(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    return f"no connection ({error})"

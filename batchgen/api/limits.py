"""Bounds of a request: the number of its headers; its body's bytes, nesting and slowness.

A body may have MAX_JSON_BYTES, unless the route that reads it as a stream allows more.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchgen.api.auth import identify
from batchgen.api.errors import ApiError, problem_of
from batchgen.errors import BatchgenError

MAX_HEADERS: Final = 100
MAX_JSON_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64  # of a JSON body
GRACE: Final = 30.0  # seconds that any body may be waited for
SLOWEST: Final = 16 << 10  # bytes/s that a body must have on average, after the grace

_STATE = "body"
# Matches a JSON string, also one without an end. It looks at each character once, in any body.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(slots=True)
class BodyLimit:
    """The bound of one request's body, and what has arrived of it."""

    # as the header says; None without one
    declared: int | None
    allowed: int = MAX_JSON_BYTES
    received: int = 0
    ended: bool = False
    # seconds; what the server itself takes to store a body is not among them
    waited: float = 0.0

    def check(self) -> None:
        """Raise ApiError if the body is, or says that it will be, too long."""
        if max(self.received, self.declared or 0) > self.allowed:
            message = f"The body has more than {self.allowed:,} bytes."
            raise ApiError(413, message, code="body_too_large")

    def count(self, message: Message) -> None:
        """Count what has arrived; raise ApiError if it is too much."""
        self.received += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        self.check()

    @property
    def patience(self) -> float:
        """The seconds until the body is too slow."""
        return max(GRACE + self.received / SLOWEST - self.waited, 0.0)


def allow_bytes(request: Request, allowed: int) -> None:
    """Let the body of this request be longer, because its route reads it as a stream."""
    limit: BodyLimit = request.scope["state"][_STATE]
    limit.allowed = allowed


class Limits:
    """Wraps an app so that its routes receive no request beyond the bounds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if len(scope["headers"]) > MAX_HEADERS:
            message = f"The request has more than {MAX_HEADERS} headers."
            raise ApiError(431, message, code="too_many_headers")
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        limit = BodyLimit(int(declared) if declared.isdecimal() else None)
        scope.setdefault("state", {})[_STATE] = limit

        async def bounded() -> Message:
            if limit.ended:  # what comes now is that the client has gone
                return await receive()
            is_streamed = limit.allowed > MAX_JSON_BYTES  # by a route that knows its caller
            if not is_streamed:  # the Content-Type does not matter: a caller may write anything
                await _need_key(Request(scope))
            _check_encoding(headers)
            limit.check()
            return await (_receive if is_streamed else _receive_json)(receive, limit)

        await self.app(scope, bounded, send)


async def _need_key(request: Request) -> None:
    """Raise ApiError unless the caller is known; FastAPI would take another error for bad JSON."""
    try:
        await run_in_threadpool(identify, request)
    except BatchgenError as error:
        problem = problem_of(error)
        raise ApiError(
            problem.status, problem.message, code=problem.code, headers=problem.headers
        ) from error


async def _receive(receive: Receive, limit: BodyLimit) -> Message:
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit.patience):
            message = await receive()
    except TimeoutError:
        raise ApiError(408, "The body came too slowly.", code="body_too_slow") from None
    limit.waited += time.monotonic() - began
    limit.count(message)
    return message


async def _receive_json(receive: Receive, limit: BodyLimit) -> Message:
    """Receive the whole body, and look at its nesting before anything is made of it."""
    body = bytearray()
    while not limit.ended:
        message = await _receive(receive, limit)
        if message["type"] == "http.disconnect":
            return message
        body += message.get("body", b"")
    if is_deep(bytes(body)):
        raise ApiError(400, f"The JSON nests deeper than {MAX_DEPTH} levels.", code="too_deep")
    return {"type": "http.request", "body": bytes(body), "more_body": False}


def is_deep(body: bytes) -> bool:
    """Return whether JSON nests deeper than MAX_DEPTH; each pass takes the innermost level away."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")
        if len(brackets) == before:
            break
    return bool(brackets)


def _check_encoding(headers: Headers) -> None:
    """Raise ApiError for a compressed body, which could become any number of bytes."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "Send the body without compression.", code="compressed_body")

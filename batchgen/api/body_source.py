"""The body of a request as a file that a thread reads while the event loop receives it.

event loop: socket ──► _chunk() ◄── asked for ── read(): a thread of its own, which may block
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any, BinaryIO, Final, TypeVar, cast

from anyio import CapacityLimiter, from_thread, to_thread
from starlette.requests import Request

from batchgen.api.errors import ApiError
from batchgen.api.limits import allow_bytes
from batchgen.api.shares import Shares

MAX_UPLOAD_BYTES: Final = 2 << 30
CHUNK_BYTES: Final = 1 << 18  # handed to the thread at a time
READERS: Final = 16  # bodies that are read at a time; others wait, unread

Result = TypeVar("Result")


async def read_body(request: Request, read: Callable[[BinaryIO], Result]) -> Result:
    """Return `read(body)`, called in a thread; `body` yields the bytes as they arrive.

    Raises what `read` raises. If the body breaks off, is too long or too slow, reading it raises
    ApiError, so that `read` can undo what it has begun.
    """
    allow_bytes(request, MAX_UPLOAD_BYTES)
    readers = request.app.state.body_readers
    source = BodySource(request)
    async with readers.place(request):
        try:
            # a limiter of its own, apart from that of the threads that answer requests
            return await to_thread.run_sync(
                read, cast("BinaryIO", source), limiter=CapacityLimiter(1)
            )
        finally:
            source.abort()


def body_readers() -> Shares:
    """Return the places of those who read bodies."""
    return Shares(READERS)


class BodySource(io.RawIOBase):
    """Reads a body; every call blocks its thread, not the event loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = b""
        self._ended = self._is_aborted = False
        # what waits for bytes
        self._waiting: asyncio.Task[Any] | None = None

    def abort(self) -> None:
        """End the reading: a thread that waits for bytes gets an error."""
        self._is_aborted = True
        if self._waiting is not None:
            self._waiting.cancel()

    def readable(self) -> bool:
        """Return True: it is a source of bytes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; b"" at the end, and only there."""
        if self._is_aborted:
            raise _broken_off()
        if not self._left and not self._ended:
            self._left = from_thread.run(self._chunk)
        if size < 0 or size >= len(self._left):
            taken, self._left = self._left, b""
        else:
            taken, self._left = self._left[:size], self._left[size:]
        return taken

    async def _chunk(self) -> bytes:
        """Receive about CHUNK_BYTES, less at the end."""
        received = bytearray()
        self._waiting = asyncio.current_task()
        while not self._ended and len(received) < CHUNK_BYTES:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise _broken_off()
            received += message.get("body", b"")
            self._ended = not message.get("more_body", False)
        self._waiting = None
        return bytes(received)


def _broken_off() -> ApiError:
    return ApiError(400, "The body broke off.", code="incomplete_body")

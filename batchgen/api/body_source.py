"""The body of a request as a file that a thread reads while the event loop receives it.

event loop: socket ──► _chunk() ◄── asked for ── read(): a thread of its own, which may block
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, Final, TypeVar, cast

from anyio import CapacityLimiter, from_thread, to_thread
from starlette.requests import Request

from batchgen.api.errors import ApiError
from batchgen.api.limits import allow_bytes

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
    limiter = request.app.state.body_readers
    source = cast("BinaryIO", BodySource(request))
    return await to_thread.run_sync(read, source, limiter=limiter)


def body_readers() -> CapacityLimiter:
    """Return the limit of threads that read bodies, apart from those that answer requests."""
    return CapacityLimiter(READERS)


class BodySource(io.RawIOBase):
    """Reads a body; every call blocks its thread, not the event loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        """Return True: it is a source of bytes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; b"" at the end."""
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
        while not self._ended and len(received) < CHUNK_BYTES:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "The body broke off.", code="incomplete_body")
            received += message.get("body", b"")
            self._ended = not message.get("more_body", False)
        return bytes(received)

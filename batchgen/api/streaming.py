"""Answers that are made while they are sent, each by one thread of its own from first to last.

event loop: send ◄── piece ──┐
                   wanted ──►│ one thread: next(pieces)

Allocators keep freed memory for each thread. If every piece came from another thread of the pool,
each of them would keep the memory of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fastapi import Request
from fastapi.responses import StreamingResponse

from batchgen.api.shares import Shares

STREAMS: Final = 16  # that are made at a time; others wait


def stream(
    request: Request,
    pieces: Iterator[bytes],
    *,
    media_type: str,
    headers: Mapping[str, str] | None = None,
    status: int = 200,
) -> StreamingResponse:
    """Return an answer whose body are the pieces; a caller who goes away ends them.

    The first piece is made here, before a status is sent, so that its error has one of its own.
    """
    first = next(pieces, b"")
    return StreamingResponse(
        _made(first, pieces, request),
        status_code=status,
        media_type=media_type,
        headers=headers,
    )


def stream_limit() -> Shares:
    """Return the places of streams that are made."""
    return Shares(STREAMS)


async def _made(first: bytes, pieces: Iterator[bytes], request: Request) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    async with request.app.state.streams.place(request):
        yield first
        thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
        try:
            while (piece := await loop.run_in_executor(thread, next, pieces, None)) is not None:
                yield piece
        finally:
            # in the same thread: after the piece that it may be making still
            thread.submit(_close, pieces)
            thread.shutdown(wait=False)


def _close(pieces: Iterator[bytes]) -> None:
    """End a generator now, so that its files are closed."""
    close = getattr(pieces, "close", None)
    if close is not None:
        close()

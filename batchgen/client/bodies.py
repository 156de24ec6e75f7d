"""The body of an upload: a stream that can be sent again when an attempt fails.

seekable file      read again from where it was
anything else      ┌ spool ─────────────┐┌ source ───────► not read yet
                     sent before            read and spooled while it is sent
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, BinaryIO, Final, Self

from anyio import to_thread

CHUNK: Final = 1 << 18  # bytes sent at a time
IN_MEMORY: Final = 8 << 20  # bytes of a spool before it becomes a temporary file


class UploadBody:
    """The rest of a binary file, as chunks; each call of `chunks` starts from the beginning.

    Memory stays flat. A source that cannot seek is copied to a temporary file while it is sent.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._start = _position(source)
        # the bytes that were sent, if the source cannot be read again
        self._spool: IO[bytes] | None = None

    @property
    def size(self) -> int | None:
        """The number of bytes, None if only the end of the stream tells it."""
        if self._start is None:
            return None
        end = self._source.seek(0, io.SEEK_END)
        return max(0, end - self._start)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning; exceptions of the source pass through."""
        if self._start is not None:
            self._source.seek(self._start)
            while chunk := self._source.read(CHUNK):
                yield chunk
            return
        if self._spool is None:
            self._spool = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (see close)
        self._spool.seek(0)
        while chunk := self._spool.read(CHUNK):
            yield chunk
        while chunk := self._source.read(CHUNK):
            self._spool.write(chunk)
            yield chunk

    async def achunks(self) -> AsyncIterator[bytes]:
        """Yield the same; the source is read in a thread, so that the event loop stays free."""
        chunks = self.chunks()
        while chunk := await to_thread.run_sync(next, chunks, b""):
            yield chunk

    def close(self) -> None:
        """Remove the temporary file; the source is the caller's."""
        if self._spool is not None:
            self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _position(source: BinaryIO) -> int | None:
    try:
        return source.tell() if source.seekable() else None
    except (AttributeError, OSError):
        return None

"""Standard streams that are closed or full: no terminal, and no reason to stop working.

stdin    closed    sys.stdin is None: whoever has to read it says so
stdout   closed    what is written goes nowhere, as with >/dev/null
         full      the first write that fails is OutputRefused, a closed pipe BrokenPipeError
stderr   closed, full or a closed pipe: what is said there is lost, and nothing else
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from batchgen.errors import OutputRefused

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = 0, 1, 2


def prepare_streams() -> None:
    """Make standard streams that can be relied on; the first thing a process does.

    A descriptor that is closed would be given to the next file that is opened: a database, say,
    into which a log line then goes.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        if not _is_open(descriptor):
            # the lowest that is free: this very one
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
    sys.stdout = _text(_Product(STDOUT, "w", closefd=False), sys.stdout, errors="strict")
    sys.stderr = _text(_Remarks(STDERR, "w", closefd=False), sys.stderr, errors="backslashreplace")


class _Remarks(io.FileIO):
    """Standard error: a write that fails is as good as one that does not."""

    def write(self, data: ReadableBuffer, /) -> int:
        with memoryview(data) as view:
            try:
                return super().write(view) or view.nbytes
            except OSError:
                return view.nbytes


class _Product(io.FileIO):
    """Standard output: the first write that fails raises, the rest is dropped."""

    _refused = False

    def write(self, data: ReadableBuffer, /) -> int:
        with memoryview(data) as view:
            if self._refused:  # what is flushed at the end would only fail again
                return view.nbytes
            try:
                return super().write(view)
            except OSError as error:
                self._refused = True
                if error.errno == errno.EPIPE:
                    raise
                reason = (error.strerror or str(error)).lower()
                raise OutputRefused(
                    f"Standard output cannot be written: {reason}. Direct it to where there is "
                    "room, and run the command again."
                ) from error


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, former: TextIO | None, *, errors: str) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(former, "encoding", None) or "utf-8",
        errors=getattr(former, "errors", None) or errors,
        line_buffering=True,
    )

"""Replaces the standard streams, so that a closed or full one does not stop the process.

stdin    closed    sys.stdin is None: the code that reads it reports that
stdout   closed    what is written is lost, as with >/dev/null
         full      the first write that fails raises OutputRefused, a closed pipe BrokenPipeError
stderr   closed, full or a closed pipe: what is written is lost, no error is raised
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
    """Open standard streams that are closed, and wrap stdout and stderr. Call it first.

    The kernel would give a closed descriptor to the next file that is opened, such as a database,
    and log lines would be written into it.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        if not _is_open(descriptor):
            # the kernel picks the lowest free descriptor, which is this one
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
    sys.stdout = _text(_Stdout(STDOUT, "w", closefd=False), sys.stdout, errors="strict")
    sys.stderr = _text(_Stderr(STDERR, "w", closefd=False), sys.stderr, errors="backslashreplace")


class _Stderr(io.FileIO):
    """Standard error: a write that fails is ignored."""

    def write(self, data: ReadableBuffer, /) -> int:
        with memoryview(data) as view:
            try:
                return super().write(view) or view.nbytes
            except OSError:
                return view.nbytes


class _Stdout(io.FileIO):
    """Standard output: the first write that fails raises, later writes are dropped."""

    _refused = False

    def write(self, data: ReadableBuffer, /) -> int:
        with memoryview(data) as view:
            if self._refused:  # the flush at exit would only fail again
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

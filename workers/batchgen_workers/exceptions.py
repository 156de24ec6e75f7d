"""Describes exceptions for logs: the place and the kind, never the text of a row."""

from __future__ import annotations

import traceback

from batchgen.errors import BatchgenError

# Their messages are about the machine or the model; other messages could quote a row.
HARMLESS = (BatchgenError, MemoryError, OSError, RuntimeError, ImportError)
MESSAGE_LIMIT = 500  # characters


def describe(error: BaseException) -> str:
    """Return a description of an error that quotes no row."""
    if isinstance(error, BatchgenError):
        return error.message
    said = str(error).strip()[:MESSAGE_LIMIT] if isinstance(error, HARMLESS) else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or of torch means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def trace(error: BaseException) -> str:
    """Return the traceback of an exception, its causes first, with a description of each."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        frames = traceback.format_list(traceback.extract_tb(seen.__traceback__))
        parts.append("Traceback (most recent call last):\n" + "".join(frames) + describe(seen))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\nand then:\n".join(reversed(parts))

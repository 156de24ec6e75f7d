"""Why one input line cannot be asked, raised where it is found."""

from __future__ import annotations

from batchgen.core.rows import RowError

_SHOWN = 64  # characters of a user's word that a message repeats at most


class LineError(Exception):
    """One line cannot be used. `requests.lines` turns it into a BadRow; it goes no further."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = RowError(code=code, message=message, param=param and param[:_SHOWN])


def quoted(word: str) -> str:
    """Return a word of the user's in quotes, on one line and of bounded length."""
    return repr(word if len(word) <= _SHOWN else word[:_SHOWN] + "…")

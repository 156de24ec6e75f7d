"""The error of an input line that cannot be used."""

from __future__ import annotations

from batchgen.core.rows import RowError

_SHOWN = 64  # characters of the user's text in a message, at most


class LineError(Exception):
    """One line cannot be used. `requests.lines` catches this and returns a BadRow."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = RowError(code=code, message=message, param=param and param[:_SHOWN])


def quoted(word: str) -> str:
    """Return the user's text in quotes, on one line and cut to a bounded length."""
    return repr(word if len(word) <= _SHOWN else word[:_SHOWN] + "…")

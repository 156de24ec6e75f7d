"""Ids as OpenAI's clients see them: `file-` or `batch_`, and the id as it is stored."""

from __future__ import annotations

import re
from typing import Final

from batchgen.errors import BatchNotFound, FileNotFound

_FILE: Final = re.compile("file-([0-9a-f]{32})")
_BATCH: Final = re.compile("batch_([0-9a-f]{32})")


def show_file(file_id: str) -> str:
    """Return the id of a file as clients see it."""
    return f"file-{file_id}"


def show_batch(batch_id: str) -> str:
    """Return the id of a batch as clients see it."""
    return f"batch_{batch_id}"


def read_file(shown: str, *, param: str | None = None) -> str:
    """Return the id of a file as stored; raise FileNotFound for any other text."""
    found = _FILE.fullmatch(shown)
    if found is None:
        raise FileNotFound(param=param)
    return found[1]


def read_batch(shown: str) -> str:
    """Return the id of a batch as stored; raise BatchNotFound for any other text."""
    found = _BATCH.fullmatch(shown)
    if found is None:
        raise BatchNotFound
    return found[1]

"""Temporary files without a name."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast


def scratch_file() -> BinaryIO:
    """Open a temporary file without a name; closing it, or the end of the process, removes it."""
    return cast("BinaryIO", tempfile.TemporaryFile())

"""Files and folders that are still there after a power cut, and sums of what is in them."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


def fsync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, each entered durably in the folder above it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    try:
        fsync(path.parent)
    except OSError:
        with suppress(OSError):  # so that it is made, and entered, again
            path.rmdir()
        raise


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as it is on disk, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

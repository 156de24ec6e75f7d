"""Check that a stored input still has the hash that is its name.

A process hashes a file when it first reads it, and again only if the file system shows that the
file was changed since.
"""

from __future__ import annotations

import hashlib
import os
import threading
from io import BufferedReader
from typing import BinaryIO, Final, NamedTuple, cast

from batchgen.errors import Corrupt

MAX_KNOWN: Final = 256  # inputs whose seal is kept


class Seal(NamedTuple):
    """The metadata of a file that changes with every change of the file."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, file: BinaryIO) -> Seal:
        """Return the seal of an open file."""
        found = os.fstat(file.fileno())
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


_known: dict[str, Seal] = {}
_lock = threading.Lock()


def sealed(file: BinaryIO, sha256: str) -> Seal:
    """Return the seal of a file that has this hash; raise Corrupt if it has another."""
    seal = Seal.of(file)
    if _known.get(sha256) == seal:
        return seal
    file.seek(0)
    hashed = hashlib.file_digest(cast("BufferedReader", file), "sha256")
    if hashed.hexdigest() != sha256:
        raise changed(sha256)
    if Seal.of(file) != seal:  # changed while it was read
        raise changed(sha256)
    with _lock:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[sha256] = seal
    return seal


def changed(sha256: str) -> Corrupt:
    """Return the error for an input that changed after it was submitted."""
    return Corrupt(
        f"The stored input {sha256[:12]} has changed since it was submitted. Submit the file again."
    )

"""Whether a stored input still is what its name says, at the cost of one reading of it.

A file is hashed when it is first read here, and again once the file system says that it was
touched since.
"""

from __future__ import annotations

import hashlib
import os
import threading
from io import BufferedReader
from typing import BinaryIO, Final, NamedTuple, cast

from batchgen.errors import Corrupt

MAX_KNOWN: Final = 256  # inputs that are remembered


class Seal(NamedTuple):
    """What the file system says of a file; another value after every change."""

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
    """Return the seal under which the file has this hash; raise Corrupt where it has another."""
    seal = Seal.of(file)
    if _known.get(sha256) == seal:
        return seal
    file.seek(0)
    hashed = hashlib.file_digest(cast("BufferedReader", file), "sha256")
    if hashed.hexdigest() != sha256:
        raise changed(sha256)
    if Seal.of(file) != seal:  # while it was read
        raise changed(sha256)
    with _lock:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[sha256] = seal
    return seal


def changed(sha256: str) -> Corrupt:
    """Return the error of an input that is not the one that was submitted."""
    return Corrupt(
        f"The stored input {sha256[:12]} has changed since it was submitted. Submit the file again."
    )

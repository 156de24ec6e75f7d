"""Small files that are written once and never changed, whoever comes first."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from batchgen.storage.durable_files import fsync


def write_once(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file durably, unless it exists.

    If several processes call this at once, exactly one of them writes the file, and none ever reads
    a part of it. The file gets `mode` less the umask.
    """
    pending = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        _create(pending, data, mode)
        _place(pending, path, mode)
    finally:
        pending.unlink(missing_ok=True)
    fsync(path.parent)


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _place(pending: Path, target: Path, mode: int) -> None:
    """Give a complete file its name, unless another process has already done so."""
    try:
        os.link(pending, target)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        return
    except OSError:  # no hard links here: others may see a partial file for a moment
        with suppress(FileExistsError):
            _create(target, pending.read_bytes(), mode)

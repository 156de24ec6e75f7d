"""Files and folders that are still there after a power cut, who may use them, and their sums.

Modes follow the umask: a file is made as any other, and what batchgen keeps loses its write bits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

FICLONE: Final = 0x40049409  # Linux: let a file share the blocks of another until one is written
WRITING: Final = 0o222  # permission bits


def fsync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Create a folder and its missing parents, each entered durably in the folder above it.

    `mode`, less the umask, is that of the folder itself; one that exists stays as it is.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    try:
        fsync(path.parent)
    except OSError:
        with suppress(OSError):  # so that it is made, and entered, again
            path.rmdir()
        raise


def make_private(folder: Path) -> None:
    """Create a folder that its owner alone may enter; one that exists stays as it is."""
    make_folder(folder, mode=0o700)


def exists(path: Path) -> bool:
    """Tell whether something is there; raise PermissionError where that may not be known.

    `Path.exists` says no to both on newer Pythons.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_read_only(path: Path) -> None:
    """Take away everybody's right to write to a file; it can still be renamed and removed."""
    path.chmod(path.stat().st_mode & ~WRITING)


def copy_file(source: Path, target: Path) -> None:
    """Write a new file of the same bytes: blocks may be shared until one is written, no inode is.

    Raises FileExistsError where there is a file already.
    """
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError:  # a file system without such copies, or another one
            shutil.copyfileobj(reader, writer, 1 << 20)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as it is on disk, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

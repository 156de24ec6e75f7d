"""Functions for files and folders: durable on disk, permissions, copies and SHA-256.

Modes follow the umask. Files that batchgen keeps lose their write bits.
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
    """Create a folder and its missing parents, and fsync the parent of each.

    The folder itself gets `mode` less the umask. A folder that exists is not changed.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    try:
        fsync(path.parent)
    except OSError:
        with suppress(OSError):  # then the next call creates and fsyncs it again
            path.rmdir()
        raise


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may enter. A folder that exists is not changed."""
    make_folder(folder, mode=0o700)


def exists(path: Path) -> bool:
    """Return whether the path exists; raise PermissionError if this user may not know.

    `Path.exists` of newer Pythons returns False in both cases.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_read_only(path: Path) -> None:
    """Remove all write bits of a file. It can still be renamed and removed."""
    path.chmod(path.stat().st_mode & ~WRITING)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a new inode. The file system may share blocks until one copy is written.

    Raises FileExistsError if `target` exists.
    """
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError:  # the file system cannot share blocks, or `target` is on another one
            shutil.copyfileobj(reader, writer, 1 << 20)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as it is on disk, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

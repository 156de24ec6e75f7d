"""Where bytes lie: a key names a file, a write is all or nothing."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from batchgen.errors import InvalidParameter
from batchgen.failpoints import reach
from batchgen.io.folders import fsync, make_folder


class Storage(Protocol):
    """What the rest of batchgen knows of storage; nothing above it knows of renames."""

    def write(self, key: str) -> PendingWrite:
        """Return a context manager whose file becomes `key`, whole, when it ends well."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading; raise FileNotFoundError."""
        ...

    def path(self, key: str) -> Path:
        """Return a local path of `key` for readers that need one (Arrow, mmap)."""
        ...

    def size(self, key: str) -> int | None:
        """Return the bytes of `key`, None where it does not exist."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it does not exist."""
        ...


class PendingWrite:
    """A file on its way to `key`: temporary name, fsync, rename, fsync of the folder.

    with storage.write("parts/7/0.e1.parquet") as pending:
        pending.file.write(b"…")          # or hand pending.path to a library
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")

    def __enter__(self) -> PendingWrite:
        make_folder(self.target.parent)
        reach("storage.opening")
        self.file: BinaryIO = self.path.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.file.close()
            if kind is None:
                reach("storage.written")
                fsync(self.path)
                reach("storage.synced")
                self.path.rename(self.target)
                reach("storage.renamed")
        finally:
            # still there only where something failed
            self.path.unlink(missing_ok=True)
        if kind is None:
            fsync(self.target.parent)


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """Keys are paths below one root folder."""

    root: Path

    def write(self, key: str) -> PendingWrite:
        """Return a context manager whose file becomes `key`, whole, when it ends well."""
        return PendingWrite(self.path(key))

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading.

        Raises FileNotFoundError, and NotADirectoryError where the whole folder is not there.
        """
        path = self.path(key)
        try:
            return path.open("rb")
        except FileNotFoundError:
            top = self.root / key.partition("/")[0]
            if not top.is_dir():  # a disk that is away says nothing of what is on it
                raise not_there(top) from None
            raise

    def path(self, key: str) -> Path:
        """Return the path of `key`.

        Raises InvalidParameter where it would leave the root, NotADirectoryError where a link
        leads out of it.
        """
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise InvalidParameter(f"{key!r} is not a storage key.")
        path = self.root / key
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise NotADirectoryError(
                errno.ENOTDIR,
                "A link leads out of the home folder; mount the other disk in its place, or name "
                "a home that is all on one with BATCHGEN_HOME",
                str(path.parent),
            )
        return path

    def size(self, key: str) -> int | None:
        """Return the bytes of `key`, None where it does not exist."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it does not exist."""
        self.path(key).unlink(missing_ok=True)


def not_there(folder: Path) -> NotADirectoryError:
    """Return the error of a folder that a disk should have and has not."""
    return NotADirectoryError(
        errno.ENOTDIR,
        "The folder is not there; see that BATCHGEN_HOME is right and its disk is mounted",
        str(folder),
    )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write one local file all or nothing, outside any storage root."""
    with PendingWrite(path) as pending:
        yield pending.file

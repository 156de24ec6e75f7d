"""Storage of files by key. A write stores the whole file or nothing."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from batchgen.errors import InvalidParameter, StoreMismatch
from batchgen.failpoints import reach
from batchgen.storage.durable_files import fsync, make_folder, make_private, make_read_only


class Guard(Protocol):
    """Checks that a folder is the store that the database belongs to."""

    def check(self) -> bool:
        """Raise StoreMismatch if it is not; return False if the database has no store yet."""
        ...

    def establish(self) -> None:
        """Make the folder the store of a database that has none yet; raise StoreMismatch."""
        ...


class Storage(Protocol):
    """The interface of storage for the rest of batchgen.

    Every method except `path` raises StoreMismatch if the right store is not mounted: only in the
    right store does a missing file mean that the file is lost. A stored file is read-only and is
    never written again.
    """

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

    def check(self, top: str = "") -> bool:
        """Raise StoreMismatch if the right store, or its folder `top`, is not there.

        Returns False if the database does not name a store yet.
        """
        ...

    def establish(self) -> None:
        """Make this the store of its database, before its first file; raise StoreMismatch."""
        ...


class PendingWrite:
    """One file being written: temporary name, fsync, rename to `key`, fsync of the folder.

    with storage.write("parts/7/0.e1.parquet") as pending:
        pending.file.write(b"…")          # or hand pending.path to a library
    """

    def __init__(
        self,
        target: Path,
        check: Callable[[], object] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """Prepare the write; `check` raises if the wrong disk, or none, is mounted."""
        self._check = check or _unchecked
        self.target = target
        self.path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        self._read_only = read_only

    def __enter__(self) -> PendingWrite:
        self._check()
        make_folder(self.target.parent)
        reach("storage.opening")
        self.file: BinaryIO = self.path.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.file.close()
            if kind is None:
                if self._read_only:
                    make_read_only(self.path)
                reach("storage.written")
                fsync(self.path)
                reach("storage.synced")
                self.path.rename(self.target)
                reach("storage.renamed")
        finally:
            # it exists only if something failed
            self.path.unlink(missing_ok=True)
        if kind is None:
            fsync(self.target.parent)
            self._check()  # without the disk, the file is in its mount point


def _unchecked() -> None:
    """Check nothing."""


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """Stores files below one root folder; a key is a path. Without a guard no store is checked."""

    root: Path
    guard: Guard | None = None

    def write(self, key: str) -> PendingWrite:
        """Return a context manager whose file becomes `key`, whole, when it ends well."""
        return PendingWrite(self.path(key), self._prepare, read_only=True)

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading.

        Raises FileNotFoundError, or StoreMismatch if its whole folder is missing.
        """
        path = self.path(key)
        try:
            return path.open("rb")
        except FileNotFoundError:
            self.check(key.partition("/")[0])
        # The disk may have come back just now: a file is missing only if the second try fails too.
        try:
            return path.open("rb")
        except FileNotFoundError:
            self.check(key.partition("/")[0])
            raise

    def path(self, key: str) -> Path:
        """Return the path of `key`.

        Raises InvalidParameter if the key leaves the root, NotADirectoryError if a link does.
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
            self.check()
            return None

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it does not exist."""
        try:
            self.path(key).unlink()
        except FileNotFoundError:
            self.check()

    def check(self, top: str = "") -> bool:
        """Raise StoreMismatch if the right store is not there, or its folder `top` is empty."""
        is_known = self.guard is None or self.guard.check()
        if top and not _holds_anything(self.root / top):
            raise not_there(self.root / top)
        return is_known

    def _prepare(self) -> None:
        self.check()
        make_private(self.root)

    def establish(self) -> None:
        """Make this the store of its database, before its first file; raise StoreMismatch."""
        if self.guard is not None:
            self.guard.establish()


def not_there(folder: Path) -> StoreMismatch:
    """Return the error for a folder that should be on the disk and is missing or empty."""
    return StoreMismatch(
        f"The folder {folder} is not there, or is empty. See that BATCHGEN_HOME is right and its "
        "disk is mounted."
    )


def _holds_anything(folder: Path) -> bool:
    """Return whether a folder has any entry. A mount point without its disk has none."""
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_disk_trouble(error: BaseException) -> bool:
    """Return whether the operating system raised this error, and not Arrow for bad content."""
    return isinstance(error, OSError) and error.errno is not None


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write one file outside any storage root, completely or not at all."""
    with PendingWrite(path) as pending:
        yield pending.file

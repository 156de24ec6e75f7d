"""Where bytes lie: a key names a file, a write is all or nothing."""

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
    """Says whether a folder is the store that a database speaks of."""

    def check(self) -> bool:
        """Raise StoreMismatch unless it is; return False where there is nothing to compare."""
        ...

    def establish(self) -> None:
        """Make it the store of a database that has none yet; raise StoreMismatch."""
        ...


class Storage(Protocol):
    """What the rest of batchgen knows of storage; nothing above it knows of renames.

    Every method but `path` raises StoreMismatch where the store is not seen: it may be away for a
    while, or another one. A missing file is a fact only beside the right store. What is stored is
    never written again: its files are read-only on disk.
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
        """Raise StoreMismatch unless the store is seen, and with it its folder `top`.

        Returns False where nobody has said yet which store it must be.
        """
        ...

    def establish(self) -> None:
        """Make this the store of its database, before its first file; raise StoreMismatch."""
        ...


class PendingWrite:
    """A file on its way to `key`: temporary name, fsync, rename, fsync of the folder.

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
        """Prepare the write; `check` raises where the disk is not the one that is meant."""
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
            # still there only where something failed
            self.path.unlink(missing_ok=True)
        if kind is None:
            fsync(self.target.parent)
            self._check()  # else it may lie below the place where the disk belongs


def _unchecked() -> None:
    """Believe in the disk."""


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """Keys are paths below one root folder; without a guard the folder is always believed."""

    root: Path
    guard: Guard | None = None

    def write(self, key: str) -> PendingWrite:
        """Return a context manager whose file becomes `key`, whole, when it ends well."""
        return PendingWrite(self.path(key), self._prepare, read_only=True)

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading.

        Raises FileNotFoundError, and StoreMismatch where the whole folder is not there.
        """
        path = self.path(key)
        try:
            return path.open("rb")
        except FileNotFoundError:
            self.check(key.partition("/")[0])
        # It was away a moment ago, perhaps: missing is what is missing between two looks.
        try:
            return path.open("rb")
        except FileNotFoundError:
            self.check(key.partition("/")[0])
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
            self.check()
            return None

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it does not exist."""
        try:
            self.path(key).unlink()
        except FileNotFoundError:
            self.check()

    def check(self, top: str = "") -> bool:
        """Raise StoreMismatch unless the store is seen, and its folder `top` with files in it."""
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
    """Return the error of a folder that a disk should have and has not."""
    return StoreMismatch(
        f"The folder {folder} is not there, or is empty. See that BATCHGEN_HOME is right and its "
        "disk is mounted."
    )


def _holds_anything(folder: Path) -> bool:
    """Return whether there is something in a folder: where a disk is away there is not."""
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_disk_trouble(error: BaseException) -> bool:
    """Tell whether the operating system refused a file, rather than Arrow what is in it."""
    return isinstance(error, OSError) and error.errno is not None


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write one local file all or nothing, outside any storage root."""
    with PendingWrite(path) as pending:
        yield pending.file

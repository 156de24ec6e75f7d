"""Records what code does to the disk: names that appear, files that are forced down or open."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    import pytest


@dataclass
class DiskEvents:
    """A log of renames, new folders and fsync calls; files and folders are known by their inode."""

    log: list[tuple[str, int | Path]] = field(default_factory=list)

    def renamed(self) -> list[Path]:
        """Return the names given, in order."""
        return [value for kind, value in self.log if kind == "rename" and isinstance(value, Path)]

    def check_durable(self, root: Path) -> None:
        """Fail unless every file was synced, and its folder after the file got its name."""
        for path in [root, *root.rglob("*")]:
            assert ("fsync", path.stat().st_ino) in self.log, f"{path} was never synced"
        for at, (kind, name) in enumerate(self.log):
            if kind != "fsync" and isinstance(name, Path):
                folder = ("fsync", name.parent.stat().st_ino)
                assert folder in self.log[at:], f"the name {name} was never synced"


@contextmanager
def recorded_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskEvents]:
    """Record renames, new folders and fsync calls of this process while the block runs."""
    events = DiskEvents()
    fsync, rename, mkdir = os.fsync, Path.rename, Path.mkdir

    def recording_fsync(descriptor: int) -> None:
        events.log.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        events.log.append(("rename", Path(target)))
        return rename(path, target)

    def recording_mkdir(path: Path, *args: Any, **options: Any) -> None:
        if not path.exists():
            events.log.append(("mkdir", path))
        mkdir(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recording_fsync)
        patch.setattr(Path, "rename", recording_rename)
        patch.setattr(Path, "mkdir", recording_mkdir)
        yield events


def open_files() -> set[int]:
    """Return the file descriptors that this process holds."""
    found = set()
    for descriptor in range(256):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Killed(BaseException):
    """Stands for a kill -9: nothing that comes after it changes the disk."""


@dataclass
class Killing:
    """`happened` is False if the block ended before the step at which it is killed."""

    happened: bool = False


@contextmanager
def killed_after(changes: int) -> Iterator[Killing]:
    """Let the block make so many changes to names and modes, and end it at the next one."""
    left, killing = changes, Killing()

    def patched(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            killing.happened |= left == 0
            if killing.happened:
                raise Killed
            left -= 1
            return change(*args, **options)

        return counted

    with ExitStack() as stack:
        for name in ("rename", "chmod", "unlink", "rmdir", "mkdir"):
            stack.enter_context(patch.object(os, name, patched(getattr(os, name))))
        with suppress(Killed):
            yield killing

"""What a piece of code does to the disk, in order: which names appear, what is forced down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


@dataclass
class DiskEvents:
    """A log of renames and of fsync calls; files and folders are known by their inode."""

    log: list[tuple[str, int | Path]] = field(default_factory=list)

    def renamed(self) -> list[Path]:
        """Return the names given, in order."""
        return [value for kind, value in self.log if kind == "rename" and isinstance(value, Path)]

    def check_durable(self, root: Path) -> None:
        """Fail unless every file was synced, and its folder after the file got its name."""
        for path in [root, *root.rglob("*")]:
            assert ("fsync", path.stat().st_ino) in self.log, f"{path} was never synced"
        for target in self.renamed():
            after = self.log[self.log.index(("rename", target)) :]
            folder = ("fsync", target.parent.stat().st_ino)
            assert folder in after, f"the name {target} was never synced"


@contextmanager
def recorded_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskEvents]:
    """Record renames and fsync calls of this process while the block runs."""
    events = DiskEvents()
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor: int) -> None:
        events.log.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        events.log.append(("rename", Path(target)))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recording_fsync)
        patch.setattr(Path, "rename", recording_rename)
        yield events

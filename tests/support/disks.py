"""Disks that a test may fill, and turn to read only: 8 MB of memory, mounted where it says."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 32 << 20  # bytes; an empty database of PostgreSQL takes 9 MiB


class Disk:
    """A small file system in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all of its space but some bytes."""
        self._ballast.unlink(missing_ok=True)
        with self._ballast.open("wb") as file:
            room = os.statvfs(self.folder)
            try:
                file.write(bytes(room.f_bavail * room.f_frsize - leave))
            except OSError as error:  # somebody else has taken some of it meanwhile
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def protect(self) -> None:
        """Let nobody write to it any more; nothing may be open for writing."""
        _mount("-o", "remount,ro", self.folder)

    def open_up(self) -> None:
        """Let it be written to again."""
        _mount("-o", "remount,rw", self.folder)


@contextmanager
def mounted_disk(folder: Path) -> Iterator[Disk]:
    """Mount an empty disk on a folder for the block; where that is forbidden, it is not tested."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.xfail("not tested here: mounting a file system needs root")
    try:
        _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder)
    except subprocess.CalledProcessError as error:
        pytest.xfail(f"not tested here: {error.stderr.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def with_short_pauses(arguments: list[str]) -> int:
    """Try again half a second after the disk refused a file, not a quarter of a minute."""
    from batchgen_workers.service import finaliser
    from batchgen_workers.shard import runner
    from tests.support.nursery import run_process

    runner.DISK_PAUSE = 0.5
    finaliser.PAUSE_AFTER_TROUBLE = 0.5
    return run_process(arguments)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)

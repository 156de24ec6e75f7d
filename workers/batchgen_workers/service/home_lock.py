"""The locks of a home. One process at a time holds each; the kernel frees it when that dies.

coordinator.lock    held by a coordinator or a run, on an SQLite home
up.lock             held by `batchgen up`, on any database

The file of a lock names its holder: process id and host.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from batchgen.errors import HomeLocked

COORDINATOR_LOCK = "coordinator.lock"
STACK_LOCK = "up.lock"
ATTEMPTS, PAUSE = 3, 0.05  # seconds between them: `holder` holds the lock for an instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock of a home."""

    # 0 if the file does not name it, because the disk was full
    pid: int
    host: str

    @property
    def is_here(self) -> bool:
        """True if the process runs on this machine, so that it can be sent a signal."""
        return self.pid > 0 and self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'} on {self.host or 'an unknown host'}"


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the coordinator lock of a home for the block; raise HomeLocked if it is not free."""
    with _held(home / COORDINATOR_LOCK) as other:
        if other is not None:
            raise HomeLocked(
                f"Another coordinator runs on {home}: {other}. Stop it first, or use another home."
            )
        yield


@contextmanager
def locked_stack(home: Path) -> Iterator[None]:
    """Hold the `batchgen up` lock of a home for the block; raise HomeLocked if it is not free."""
    with _held(home / STACK_LOCK) as other:
        if other is not None:
            raise HomeLocked(
                f"`batchgen up` runs on {home} already: {other}. Stop it first with "
                "`batchgen down`; to serve several models, name them all."
            )
        yield


def holder(home: Path, name: str) -> Holder | None:
    """Return the process that holds a lock of `home`, None if the lock is free."""
    try:
        with (home / name).open() as lock:
            if _take(lock, fcntl.LOCK_SH):
                return None
            return _read(lock)
    except FileNotFoundError:
        return None


def await_free(home: Path, name: str) -> None:
    """Return once a lock of `home` is free."""
    with (home / name).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


@contextmanager
def _held(path: Path) -> Iterator[Holder | None]:
    """Hold a lock for the block and yield None; if another process holds it, yield that one."""
    with path.open("a+") as lock:  # not truncated: the file still names the holder
        for _ in range(ATTEMPTS):
            if _take(lock, fcntl.LOCK_EX):
                _sign(lock)
                yield None
                return
            time.sleep(PAUSE)
        yield _read(lock)


def _take(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(lock: IO[str]) -> None:
    with suppress(OSError):  # a full disk must not prevent the work
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{os.getpid()} {socket.gethostname()}\n".encode())


def _read(lock: IO[str]) -> Holder:
    lock.seek(0)
    pid, _, host = lock.read().strip().partition(" ")
    return Holder(pid=int(pid) if pid.isdigit() else 0, host=host)

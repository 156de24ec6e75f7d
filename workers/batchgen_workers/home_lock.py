"""The lock of an SQLite home: one coordinator at a time; the kernel frees it at death."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen.errors import HomeLocked

LOCK_FILE = "coordinator.lock"


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the lock of `home` for the block; raise HomeLocked where another process has it."""
    with (home / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeLocked(
                f"Another coordinator runs on {home}. Stop it first, or use another home."
            ) from None
        yield

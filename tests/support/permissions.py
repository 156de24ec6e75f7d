"""Modes of files, and processes that permissions hold for, root's too."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PR_CAPBSET_DROP = 24
OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what root reads and writes others' by


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Set the umask of this process for one test."""
    before = os.umask(0o022)
    yield _set_umask
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permission bits of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def writable(path: Path) -> Path:
    """Return a file that batchgen keeps, now open to damage by its owner."""
    path.chmod(mode(path) | stat.S_IWUSR)
    return path


@contextmanager
def closed_to_all(path: Path) -> Iterator[None]:
    """Let nobody enter or read a folder or file for the block, as if it were another user's."""
    before = mode(path)
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(before)


def as_a_user(
    *words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, without root's right to pass over permissions."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_give_up_overrides,
    )


def _set_umask(mask: int) -> None:
    os.umask(mask)


def _give_up_overrides() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in OVERRIDES:
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "a capability cannot be given up")

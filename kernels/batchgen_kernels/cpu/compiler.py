"""The C++ compiler of this machine; loads no torch, so that anybody may ask for it."""

from __future__ import annotations

import shutil
from pathlib import Path

# GCC comes first: it shares torch's OpenMP runtime, where clang brings one of its own.
COMPILERS = ("g++", "c++", "clang++")


class BuildFailed(Exception):
    """There is no library; the message says why."""


def find_compiler() -> Path:
    """Return the first C++ compiler on the PATH; raise BuildFailed."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return Path(found)
    raise BuildFailed(f"no C++ compiler on the PATH ({', '.join(COMPILERS)})")

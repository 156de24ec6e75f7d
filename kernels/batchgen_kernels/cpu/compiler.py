"""The C++ compiler of this machine. Imports no torch, so that light processes can use it."""

from __future__ import annotations

import shutil
from pathlib import Path

# GCC comes first because it uses torch's OpenMP runtime, while clang brings its own.
COMPILERS = ("g++", "c++", "clang++")


class BuildFailed(Exception):
    """The library cannot be built; the message gives the reason."""


def find_compiler() -> Path:
    """Return the first C++ compiler on the PATH; raise BuildFailed."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return Path(found)
    raise BuildFailed(f"no C++ compiler on the PATH ({', '.join(COMPILERS)})")

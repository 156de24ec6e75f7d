"""The C++ file as a shared library: compiled once per machine, kept in the user's cache.

    <cache>/batchgen/kernels/<digest>.so      digest of source, flags, compiler and CPU

A library ends with the SHA-256 of all bytes before it, which the system's loader ignores. A file
that is truncated or changed is built again. Files are renamed into place, so if two processes build
at once, the work is only done twice.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from platformdirs import user_cache_path

from batchgen_kernels.cpu.compiler import BuildFailed, find_compiler

SOURCE = Path(__file__).with_name("kernels.cpp")
CPUINFO = Path("/proc/cpuinfo")
# Sums keep their order and NaN stays NaN: no -ffast-math.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fopenmp", "-fPIC", "-shared", "-fvisibility=hidden"),
)
TIMEOUT = 300.0  # seconds for one compilation
TRAILER = hashlib.sha256().digest_size  # bytes


def load() -> ctypes.CDLL | None:
    """Return the library; if this machine cannot build it, warn once and return None."""
    return attempt()[0]


def trouble() -> str:
    """Return the reason why this machine has no library; "" if it has one."""
    return attempt()[1]


@cache
def attempt() -> tuple[ctypes.CDLL | None, str]:
    """Load the library once in this process; return it and "", or None and the reason."""
    try:
        return open_library(user_cache_path("batchgen") / "kernels"), ""
    except (BuildFailed, OSError) as error:  # no compiler, or its output cannot be written
        warnings.warn(
            f"no CPU kernels, computing with plain torch, which is slower: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, str(error)


def open_library(folder: Path) -> ctypes.CDLL:
    """Return the library kept in `folder`; build it if it is not there. Raise BuildFailed.

    If the folder cannot be written, the library is built for this process only.
    """
    compiler = find_compiler()
    path = folder / f"{digest(compiler)}.so"
    try:
        if not is_whole(path):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            build(compiler, path)
        return ctypes.CDLL(str(path))
    except OSError:
        with tempfile.TemporaryDirectory(prefix="batchgen-kernels-") as scratch:
            path = Path(scratch) / path.name
            build(compiler, path)
            return _open(path)


def digest(compiler: Path) -> str:
    """Return the hex digest that names the library built by `compiler` for this CPU."""
    facts = [
        SOURCE.read_bytes(),
        " ".join((*FLAGS, *_openmp())).encode(),
        _run([str(compiler), "--version"]),
        platform.machine().encode(),
        _cpu_flags(),
    ]
    return hashlib.sha256(b"\0".join(facts)).hexdigest()[:32]


def is_whole(path: Path) -> bool:
    """Return whether the file `path` is complete and unchanged since `build` wrote it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[:-TRAILER]).digest() == content[-TRAILER:]


def build(compiler: Path, path: Path) -> None:
    """Compile the source and rename the complete library to `path`; raise BuildFailed."""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        _run([str(compiler), *FLAGS, str(SOURCE), *_openmp(), "-o", str(made)])
        content = made.read_bytes()
        made.write_bytes(content + hashlib.sha256(content).digest())
        made.replace(path)


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildFailed(str(error)) from error


def _openmp() -> list[str]:
    """Return linker arguments for the OpenMP runtime that torch has loaded.

    A second runtime in the process would be a second pool of threads on the same cores.
    """
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return ["-Wl,--as-needed", *(str(path) for path in found)]


def _cpu_flags() -> bytes:
    try:
        lines = CPUINFO.read_bytes().splitlines()
    except OSError:  # not Linux
        return platform.processor().encode()
    return next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT).stdout
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise BuildFailed(f"{command[0]} failed: {lines[0] if lines else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]} failed: {error}") from error

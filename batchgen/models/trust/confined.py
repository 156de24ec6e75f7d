"""Runs code that reads untrusted files in a separate process with a memory limit.

run_confined(module, …)  ──►  python -m module …  ──►  answer(work, memory=…)
text, or the error       ◄──  standard output, or exit status and last line of standard error
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from batchgen.errors import ModelError, UnsafeModel, UnsupportedModel

UNSAFE = 3  # exit status for UnsafeModel; 1 is for UnsupportedModel
ADDRESSES = 8 << 30  # assumed bytes of address space in use, if the system does not tell
# No downloads, and few threads, because each reserves address space.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_NUM_THREADS": "4",
    "RAYON_NUM_THREADS": "4",
    "MALLOC_ARENA_MAX": "2",
}


def run_confined(module: str, *arguments: str | Path) -> str:
    """Run a module that calls `answer` and return its standard output.

    Raise UnsafeModel or UnsupportedModel with the last line that it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *map(str, arguments)],
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    raise (UnsafeModel if done.returncode == UNSAFE else UnsupportedModel)(last[0])


def answer(work: Callable[[], str], *, memory: int) -> int:
    """Do `work` with at most `memory` further bytes, write its text; return the exit status.

    Every exception is reported, because damaged files can make a library fail anywhere.
    """
    limit_memory(used_addresses() + memory)
    try:
        sys.stdout.write(work())
        return 0
    except MemoryError:
        status, reason = UNSAFE, f"It needs more than {memory >> 20:,} MiB of memory."
    except ModelError as error:
        status, reason = UNSAFE if isinstance(error, UnsafeModel) else 1, error.message
    except Exception as error:  # noqa: BLE001 (damaged files can raise anything)
        status, reason = 1, f"{type(error).__name__}: {error}"
    sys.stderr.write(f"\n{' '.join(reason.split())}\n")
    return status


def limit_memory(size: int) -> None:
    """Limit the address space of this process to `size` bytes, if the system supports it."""
    with suppress(ValueError):  # a lower limit is set already, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def used_addresses() -> int:
    """Return how many bytes of address space this process uses."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return ADDRESSES
    return pages * resource.getpagesize()

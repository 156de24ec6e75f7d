"""Runs another program in this process, and ends it when its parent process dies.

    python -m batchgen_workers.service.with_parent PROGRAM

It is for programs that do not notice that by themselves. On systems other than Linux they go on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(command: list[str]) -> None:
    """Ask the kernel for SIGTERM when the parent dies, then execute the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(command[0], command)  # noqa: S606 (the command comes from the parent process)


if __name__ == "__main__":
    main(sys.argv[1:])

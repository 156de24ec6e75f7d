"""Becomes another program, which ends with its parent.

    python -m batchgen_workers.service.with_parent PROGRAM

For programs that do not notice by themselves. Only Linux can do it; elsewhere they stay.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(command[0], command)  # noqa: S606 (the command of whoever started us)


if __name__ == "__main__":
    main(sys.argv[1:])

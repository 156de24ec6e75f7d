"""Where a socket of ours can lie: the kernel takes a path of 107 bytes, and no more."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from batchgen.errors import BrokerUnavailable

LIMIT = 107  # bytes of sockaddr_un.sun_path, without its last, which is 0
NAME = 56  # bytes kept for a folder and a socket in it
ELSEWHERE = ("/tmp", "/var/tmp")  # noqa: S108 (the folders in them are made for one user alone)


def socket_root() -> Path:
    """Return a folder with so short a path that a socket can be two names below it.

    It is the temporary folder where that is short enough. Raises BrokerUnavailable.
    """
    temporary = Path(tempfile.gettempdir())
    runtime = [os.environ["XDG_RUNTIME_DIR"]] if os.environ.get("XDG_RUNTIME_DIR") else []
    for folder in (temporary, *map(Path, (*runtime, *ELSEWHERE))):
        fits = len(os.fsencode(folder)) + 1 + NAME <= LIMIT
        if fits and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise BrokerUnavailable(
        f"The broker's socket cannot lie in {temporary}: with its name the path is longer than "
        f"{LIMIT} bytes. Set TMPDIR to a folder with a shorter path, or BATCHGEN_BROKER_URL."
    )

"""Finds a folder for our sockets: the kernel takes paths of at most 107 bytes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from batchgen.errors import BrokerUnavailable

LIMIT = 107  # bytes of sockaddr_un.sun_path, without the final 0
NAME = 56  # bytes reserved for the names of a folder and a socket in it
ELSEWHERE = ("/tmp", "/var/tmp")  # noqa: S108 (the folders in them are made for one user alone)


def socket_root() -> Path:
    """Return a folder whose path is short enough for a subfolder with a socket.

    The temporary folder is preferred. Raises BrokerUnavailable.
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

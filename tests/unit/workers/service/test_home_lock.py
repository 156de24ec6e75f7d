from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.errors import HomeLocked
from batchgen_workers.service.home_lock import COORDINATOR_LOCK, holder, locked_home

HOLD = """
import sys
from pathlib import Path
from batchgen_workers.service.home_lock import locked_home
with locked_home(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_coordinator_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder_process:
        assert holder_process.stdout is not None
        assert holder_process.stdout.readline() == b"locked\n"
        refused = f"{tmp_path}: process {holder_process.pid} on {socket.gethostname()}"
        with pytest.raises(HomeLocked, match=re.escape(refused)), locked_home(tmp_path):
            pass
        found = holder(tmp_path, COORDINATOR_LOCK)
        assert found is not None
        assert (found.pid, found.is_here) == (holder_process.pid, True)
        holder_process.kill()
        holder_process.wait()
        assert holder(tmp_path, COORDINATOR_LOCK) is None
        with locked_home(tmp_path):
            pass


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_home(tmp_path):
            pass

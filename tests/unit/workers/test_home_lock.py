from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.errors import HomeLocked
from batchgen_workers.home_lock import locked_home

HOLD = """
import sys
from pathlib import Path
from batchgen_workers.home_lock import locked_home
with locked_home(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_coordinator_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(HomeLocked, match=str(tmp_path)), locked_home(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with locked_home(tmp_path):
            pass


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_home(tmp_path):
            pass

"""The worked example of the README, as a newcomer has it after `make demo`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.receivers import free_port
from tests.support.repository import ROOT

if TYPE_CHECKING:
    from batchgen.models.record import ModelRecord

ROWS = 4  # of the 40: what is computed is looked at elsewhere


def script() -> str:
    """Return what the README has people type and run, one after the other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert {kind for kind, _ in blocks} == {"console", "python"}
    lines = [line for kind, block in blocks for line in commands(kind, block)]
    text = "\n".join(["set -e", "trap 'batchgen down || true' EXIT", *lines])
    port = str(free_port())
    ours = [
        ("head -n 40", f"head -n {ROWS}"),
        (":8000", f":{port}"),
        ("batchgen up", f"batchgen up --port {port}"),
    ]
    for theirs, mine in ours:
        text = text.replace(theirs, mine)
    return text


def commands(kind: str, block: str) -> list[str]:
    """Return the commands of one block, as a shell takes them."""
    if kind == "python":
        return ["python - <<'END'", block + "END"]
    return [line[2:] for line in block.splitlines() if line[:2] == "$ "]


def test_the_worked_example_works_after_the_demo(tmp_path: Path, smollm2: ModelRecord) -> None:
    clone = tmp_path / "clone"
    (clone / "demo-home" / "models").mkdir(parents=True)
    (clone / "demo-home" / "models" / smollm2.name).symlink_to(smollm2.path)
    (clone / ".venv").mkdir()
    (clone / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (clone / "examples").symlink_to(ROOT / "examples")
    # of a newcomer's shell: nothing of ours is on its PATH, and no setting of ours is in it
    path = "/usr/local/bin:/usr/bin:/bin"
    ours = ("BATCHGEN_", "VIRTUAL_ENV", "PYTHON")
    shell = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        ["bash", "-c", script()],
        cwd=clone,
        env={**shell, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [smollm2.name, str(clone / "answers"), "answers: ok"]
    assert f"shape: ({ROWS}, 2)" in done.stdout
    [sums] = [at for at, line in enumerate(lines) if re.fullmatch(r"\d+ tokens, 0 errors", line)]
    assert [line.split()[0] for line in lines[sums - 3 : sums]] == ["ferry", "letter", "orchestra"]
    served = lines.index("completed 2 of 2")
    assert [line.split()[0] for line in lines[served + 1 : served + 3]] == ["ferry", "letter"]
    assert lines[-1] == "nightly"
    assert (clone / "nightly" / ".batchgen" / "manifest.json").exists()
    assert f"completed  {ROWS}/{ROWS} rows, 0 failed" in done.stderr

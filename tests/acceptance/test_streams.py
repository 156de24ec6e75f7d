"""Commands whose standard streams are closed or full: real processes, started by a shell."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.dataset.verify import verify_dataset
from tests.support.tiny_models import tiny_llama

ROWS = 8
PATIENCE = 240  # seconds for one command on a busy machine
# {redirection: exit status}
REDIRECTIONS = {"<&- >&- 2>&-": 0, ">/dev/full 2>/dev/full": 1}
# Each writes data to standard output.
COMMANDS = [
    "--version",
    "config show",
    "models ls",
    "validate prompts.jsonl -m tiny --json",
    "ls",
    "status nightly",
    "submit prompts.jsonl -m tiny",
    "run prompts.jsonl -o {folder} -m tiny",
]


class Shell:
    """Runs command lines of bash in one home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = {"BATCHGEN_HOME": str(folder / "home"), "PYTHONWARNINGS": "error"}
        engine = {"BATCHGEN_ENGINE__THREADS": "1", "BATCHGEN_ENGINE__KV_MEMORY": "64M"}
        self.env = {**os.environ, **home, **engine}

    def __call__(self, command: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
        """Run `batchgen COMMAND REDIRECTION` to its end."""
        program = f"{shlex.quote(sys.executable)} -P -m batchgen_cli.main"
        return subprocess.run(
            ["bash", "-c", f"exec {program} {command} {redirection}"],
            cwd=self.folder,
            env=self.env,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home with the model `tiny`, a prompt file and a job."""
    shell = Shell(tmp_path_factory.mktemp("streams"))
    tiny_llama(shell.folder / "source")
    lines = [json.dumps({"prompt": f"Count to {row}", "max_tokens": 4}) for row in range(ROWS)]
    (shell.folder / "prompts.jsonl").write_text("\n".join(lines))
    for command in (
        "models import tiny source",
        "submit prompts.jsonl -m tiny --name nightly",
    ):
        assert shell(command).returncode == 0
    return shell


@pytest.mark.parametrize("command", COMMANDS)
def test_streams_that_are_not_there_or_full_stop_no_work(shell: Shell, command: str) -> None:
    folders = {redirection: f"out-{number}" for number, redirection in enumerate(REDIRECTIONS)}
    runs = "{folder}" in command
    for redirection, status in REDIRECTIONS.items():
        done = shell(command.format(folder=folders[redirection]), redirection)
        assert done.returncode == status, redirection
        if runs:
            assert verify_dataset(shell.folder / folders[redirection]) == []
    database = shell.folder / "home" / "batchgen.db"
    assert database.read_bytes().startswith(b"SQLite format 3\0")


def test_a_full_standard_output_is_named_and_a_full_standard_error_is_not(shell: Shell) -> None:
    full = shell("ls", ">/dev/full")
    assert full.stderr.startswith("Error: Standard output cannot be written: no space left on")
    assert shell("ls -v", "2>/dev/full").stdout == shell("ls").stdout


@pytest.mark.parametrize(
    "command", ["run - -o out -m tiny", "submit - -m tiny", "validate - -m tiny"]
)
def test_a_closed_standard_input_is_named_where_it_is_read(shell: Shell, command: str) -> None:
    done = shell(command, "<&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: Standard input is closed")


def test_a_reader_of_remarks_that_goes_away_stops_nothing(shell: Shell) -> None:
    done = shell("submit prompts.jsonl -m tiny -v", "2> >(exec 0<&-; true)")
    assert done.returncode == 0
    assert done.stdout

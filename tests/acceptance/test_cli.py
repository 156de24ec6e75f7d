"""The command as its users have it: real processes, a real engine, a tiny random model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet as pq
import pytest

from batchgen.dataset.verify import verify_dataset
from tests.support.nursery import is_stopped
from tests.support.tiny_models import tiny_llama
from tests.support.workers import is_alive, wait_until

BATCHGEN = [sys.executable, "-P", "-m", "batchgen_cli.main"]
PATIENCE = 240  # seconds for one command on a busy machine
ROWS = 400
MODEL = "Owner/Tiny-0.1B"  # as on the hub
CONTEXT = 256  # tokens of the tiny model


class Shell:
    """Runs `batchgen` in one home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = {"BATCHGEN_HOME": str(folder / "home"), "BATCHGEN_DRAIN_GRACE": "0"}
        engine = {"BATCHGEN_ENGINE__THREADS": "1", "BATCHGEN_ENGINE__KV_MEMORY": "64M"}
        self.env = {**os.environ, **home, **engine}

    def start(self, *args: object, **variables: str) -> subprocess.Popen[str]:
        """Start a command with its output in pipes, and `variables` in its environment."""
        return subprocess.Popen(
            [*BATCHGEN, *map(str, args)],
            cwd=self.folder,
            env={**self.env, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *args: object, code: int = 0) -> str:
        """Run a command to its end, check its exit code, and return its data."""
        with self.start(*args) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home with one model, and a prompt file of which row 7 is too long."""
    shell = Shell(tmp_path_factory.mktemp("cli"))
    tiny_llama(shell.folder / "source")
    assert shell("models", "import", MODEL, "source") == f"{MODEL}\n"
    lines = [
        {"id": f"q{row}", "prompt": "x" * CONTEXT * 4 if row == 7 else f"Count to {row}"}
        for row in range(ROWS)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (shell.folder / "prompts.jsonl").write_text(text)
    return shell


def events_until(process: subprocess.Popen[str], happened: Callable[[Any], bool]) -> Any:
    """Read JSON events until one fits."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if happened(event):
            return event
    raise AssertionError(f"no such event: {process.communicate()[1]}")


def ids_of(folder: Path, kind: str) -> list[str]:
    """Return the custom ids of a dataset's answered or failed rows, in order."""
    return [
        custom_id
        for path in sorted((folder / kind).glob("*.parquet"))
        for custom_id in pq.read_table(path)["custom_id"].to_pylist()
    ]


def check_dataset(folder: Path) -> None:
    """Check that every row is there once, and that only row 7 failed."""
    assert verify_dataset(folder) == []
    assert ids_of(folder, "data") == [f"q{row}" for row in range(ROWS) if row != 7]
    assert ids_of(folder, "errors") == ["q7"]


def test_a_run_is_interrupted_and_goes_on(shell: Shell) -> None:
    request = ("run", "prompts.jsonl", "-o", "out", "-m", MODEL)
    fixed = ("-p", "temperature=0", "-p", "max_tokens=60", "-p", "ignore_eos=true")
    # It stops itself with its first part: the rows that the engine has may end meanwhile, and no
    # others, however fast it is.
    with shell.start(*request, *fixed, BATCHGEN_FAILPOINT="part.committed=stop@1") as process:
        wait_until(lambda: is_stopped(process.pid) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    told = re.search(r"Interrupted: (\d+) of 400 rows are kept. The same command goes on", said)
    assert told is not None, said
    n_kept = int(told.group(1))
    assert n_kept > 0
    assert not (shell.folder / "out" / "data").exists()
    assert shell(*request, code=2) == ""  # other parameters
    # one row is too long for the context: its error is a row, and the exit code says so
    with shell.start(*request, *fixed) as process:
        out, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, f"{shell.folder / 'out'}\n")
    assert f"Going on: {n_kept} of 400 rows are done" in said
    check_dataset(shell.folder / "out")
    assert shell("verify", "out") == "out: ok\n"
    # No working copy is left that a reader of out/**/*.parquet would count again.
    kept = {path.name for path in (shell.folder / "out" / ".batchgen").iterdir()}
    assert kept == {"manifest.json", "run.log", "engine.log"}


@contextmanager
def stack(shell: Shell) -> Iterator[subprocess.Popen[bytes]]:
    """Run `batchgen up` for the block, and check that it ends well and leaves no process."""
    with (shell.folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*BATCHGEN, "up", "-m", MODEL, "--port", "0"],
            cwd=shell.folder,
            env=shell.env,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait(PATIENCE)
    assert code == 0, (shell.folder / "up.log").read_text()


def test_a_stack_on_one_machine(shell: Shell) -> None:
    options = ("-m", MODEL, "-p", "max_tokens=20", "--name", "nightly")
    public_id = shell("submit", "prompts.jsonl", *options).strip()
    # Nobody works on the job yet, so it cannot end while it is watched.
    with shell.start("watch", "nightly", "--json") as watcher:
        events_until(watcher, lambda event: event["id"] == public_id)
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 130
    with stack(shell):
        assert shell("wait", "nightly", code=1) == f"{public_id}  completed\n"
        wait_until(lambda: shell("workers", "-q"))
    shell("results", "nightly", "-o", "answers")
    check_dataset(shell.folder / "answers")
    lines = shell("results", "nightly", "--format", "openai").splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"q{row}" for row in range(ROWS)]
    assert shell("fsck") == ""
    shell("rm", "nightly")
    assert shell("ls", "-q") == ""


def test_up_goes_to_the_background_and_down_ends_it(shell: Shell) -> None:
    with shell.start("up", "-m", MODEL, "--port", "0", "--detach") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    pid = int(said.partition("(pid ")[2].partition(")")[0])
    log = shell.folder / "home" / "logs" / "up.log"
    try:
        assert str(log) in said
        address = said.partition("OPENAI_BASE_URL=")[2].splitlines()[0]
        key = (shell.folder / "home" / "api-key").read_text().strip()
        headers = {"authorization": f"Bearer {key}"}
        ready = httpx2.get(address.replace("/v1", "/readyz"), headers=headers, timeout=PATIENCE)
        assert ready.json()["status"] == "ready"
        assert os.getsid(pid) == pid  # no terminal takes it along
        for again in (("up", "-m", MODEL), ("up", "-m", MODEL, "--detach")):
            with shell.start(*again) as second:
                _, refused = second.communicate(timeout=PATIENCE)
            assert second.returncode == 3, refused
            assert f"already: process {pid} on" in refused
        job = shell("submit", "prompts.jsonl", "-m", MODEL, "-p", "max_tokens=2").strip()
        shell("wait", job, code=1)  # row 7 is too long
        shell("rm", job)
        shell("down")
        wait_until(lambda: not is_alive(pid))
        shell("down", code=4)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not is_alive(pid))
    words = log.read_text()
    assert words.count(f"worker {MODEL} started") == 1
    assert f"worker {MODEL} stopped" in words

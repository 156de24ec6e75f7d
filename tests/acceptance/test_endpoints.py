"""A job on an endpoint, by the command: the dataset of any other job, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import EndpointUnavailable, InvalidParameter
from tests.support.scripted_endpoint import MODEL, Asked, Reply, ScriptedEndpoint
from tests.support.workers import wait_until

BATCHGEN = [sys.executable, "-P", "-m", "batchgen_cli.main"]
PATIENCE = 240  # seconds for one command on a busy machine
ROWS = 200


class Shell:
    """Runs `batchgen` in one home, with a key in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "BATCHGEN_HOME": str(folder / "home"), "A_KEY": "sk-secret"}
        lines = [{"messages": [{"role": "user", "content": f"row {at}"}]} for at in range(ROWS)]
        text = "".join(
            json.dumps({"id": f"id-{at}", **line}) + "\n" for at, line in enumerate(lines)
        )
        (folder / "prompts.jsonl").write_text(text)

    def start(self, *args: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*BATCHGEN, *map(str, args)],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *args: object, code: int = 0) -> str:
        with self.start(*args) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, err
        return out + err


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_server_that_is_killed_half_way_and_started_again(shell: Shell) -> None:
    with ScriptedEndpoint() as endpoint:
        left = [ROWS // 2]

        def half(asked: Asked) -> Reply | None:
            if not asked.prompt.startswith("row "):
                return None
            left[0] -= 1
            return Reply(hangs=True) if left[0] < 0 else None

        endpoint.script = half
        with shell.start(
            *("run", "prompts.jsonl", "-o", "out", "-m", MODEL, "--json"),
            *("--endpoint", endpoint.url, "--api-key-env", "A_KEY"),
        ) as run:
            wait_until(lambda: left[0] < 0, within=PATIENCE)
            endpoint.kill()
            assert run.stdout is not None
            assert any('"waiting_for":"waiting for endpoint: ' in line for line in run.stdout)
            endpoint.script = lambda asked: None
            endpoint.start()
            _, err = run.communicate(timeout=PATIENCE)
            assert run.returncode == 0, err
        answers = {prompt: count for prompt, count in endpoint.answered.items() if "row" in prompt}
    out = shell.folder / "out"
    assert verify_dataset(out) == []
    table = pq.read_table(out / "data")
    assert table.schema.equals(SCHEMA)
    assert table["custom_id"].to_pylist() == [f"id-{at}" for at in range(ROWS)]
    assert table["response"].to_pylist() == [f"answer to row {at}" for at in range(ROWS)]
    assert answers == {f"row {at}": 1 for at in range(ROWS)}
    manifest = (out / ".batchgen" / "manifest.json").read_text()
    (numerics,) = json.loads(manifest)["totals"]["numerics"]
    assert (numerics["device"], numerics["kernels"]) == ("endpoint", "openai")
    kept = [path.read_bytes() for path in shell.folder.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in content for content in kept)


def test_endpoints_are_registered_checked_and_refused(shell: Shell) -> None:
    with ScriptedEndpoint() as endpoint:
        said = shell("models", "add", "mine", "--endpoint", endpoint.url.removesuffix("/v1"))
        assert f"{MODEL} by openai, 4,096 tokens" in said
        shown = json.loads(shell("models", "show", "mine", "--json"))
        assert (shown["max_length"], shown["endpoint"]["served_model"]) == (4096, MODEL)
        endpoint.models = {MODEL: 2048}
        assert json.loads(shell("models", "check", "mine", "--json"))["context"] == 2048
        assert json.loads(shell("models", "show", "mine", "--json"))["max_length"] == 2048
        refused = shell("submit", "prompts.jsonl", "-m", "mine", "-p", "num_beams=4", code=2)
        assert "'num_beams' is not served" in refused
        endpoint.models = {"another": None}
        gone = shell("models", "check", "mine", code=EndpointUnavailable.exit_code)
        assert f"does not serve '{MODEL}' but 'another'" in gone
    away = shell("models", "check", "mine", code=EndpointUnavailable.exit_code)
    assert "no connection" in away
    elsewhere = ("models", "add", "far", "--endpoint", "https://api.example.com/v1")
    assert "BATCHGEN_ENDPOINT__HOSTS" in shell(*elsewhere, code=InvalidParameter.exit_code)

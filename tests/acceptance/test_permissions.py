"""A file of another user gives "permission denied" with its name, never "not found"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.service import Service
from batchgen.settings import Settings
from tests.support.homes import finish, pin_model, prompts
from tests.support.permissions import as_a_user
from tests.support.tiny_models import tiny_llama

#: Runs commands in one process, each while one path is closed to everybody.
SCRIPT = """
import json, sys
from pathlib import Path
from click.testing import CliRunner
from batchgen.engine.network.loading import load_config
from batchgen_cli.main import cli
from tests.support.permissions import closed_to_all

for closed, words in json.loads(sys.argv[1]):
    with closed_to_all(Path(closed)):
        if words[0] == "load":
            try:
                load_config(Path(words[1]))
            except Exception as error:
                print(json.dumps([type(error).__name__, str(error)]))
        else:
            result = CliRunner().invoke(cli, words)
            print(json.dumps([result.exit_code, result.output]))
"""

HOME_COMMANDS: list[list[str]] = [
    ["ls"],
    ["status", "nightly"],
    ["results", "nightly"],
    ["results", "nightly", "-o", "copy"],
    ["results", "nightly", "--partial"],
    ["verify", "nightly"],
    ["cancel", "nightly"],
    ["rm", "nightly"],
    ["fsck"],
    ["workers"],
    ["models", "ls"],
    ["models", "verify", "tiny"],
    ["models", "rm", "tiny"],
    ["submit", "prompts.jsonl", "-m", "tiny"],
    ["run", "prompts.jsonl", "-o", "new", "-m", "tiny"],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a home, a job and a copy of its dataset."""
    (tmp_path / "prompts.jsonl").write_bytes(prompts(4))
    pin_model(tmp_path / "home")
    tiny_llama(tmp_path / "llama")
    service = Service(Settings(home=tmp_path / "home"))
    from batchgen.service.submission import Submission

    with (tmp_path / "prompts.jsonl").open("rb") as rows:
        job = service.submit(rows, Submission(model="tiny", name="nightly"))
    finish(service, job)
    service.results.export("nightly", tmp_path / "answers")
    service.close()
    return tmp_path


def said(folder: Path, cases: list[tuple[str, list[str]]]) -> list[tuple[Any, str]]:
    """Return exit code and output of each command, run while its path is closed."""
    given = json.dumps([[str(folder / closed), words] for closed, words in cases])
    root = str(Path(__file__).parents[2])
    env = {"BATCHGEN_HOME": str(folder / "home"), "PYTHONPATH": root}
    done = as_a_user("-c", SCRIPT, given, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_what_may_not_be_read_is_never_called_missing(folder: Path) -> None:
    cases: dict[tuple[str, ...], tuple[str, list[str], Any]] = {
        **{("home", *words): ("home", words, 4) for words in HOME_COMMANDS},
        ("home", "doctor"): ("home", ["doctor"], 3),
        ("database",): ("home/batchgen.db", ["ls"], 4),
        ("datasets",): ("home/datasets", ["verify", "nightly"], 4),
        ("a dataset, copied",): ("home/datasets", ["results", "nightly", "-o", "copy"], 4),
        ("models",): ("home/models", ["models", "ls"], 4),
        ("one model",): ("home/models/tiny", ["models", "ls"], 4),
        ("copy",): ("answers", ["verify", "answers"], 4),
        ("output",): (
            "answers/.batchgen",
            ["run", "prompts.jsonl", "-o", "answers", "-m", "tiny"],
            4,
        ),
        ("prompts",): ("prompts.jsonl", ["validate", "prompts.jsonl"], 2),
        ("source",): ("llama", ["models", "import", "llama", "llama"], 2),
        ("weights",): ("llama/model.safetensors", ["load", "llama"], "ModelError"),
    }
    results = said(folder, [(closed, words) for closed, words, _ in cases.values()])
    assert len(results) == len(cases)
    for (closed, words, code), (found, output) in zip(cases.values(), results, strict=True):
        shown = f"{' '.join(words)} while {closed} is closed: {found}, {output}"
        assert found == code, shown
        assert "permission denied" in output.lower(), shown
        for less in ("no such file", "traceback", "no model", "no job", "is missing", "not made"):
            assert less not in output.lower(), shown

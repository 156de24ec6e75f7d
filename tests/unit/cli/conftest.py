"""The command in a home of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from batchgen.jobs.job_records import JobRecord
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen_cli.main import cli
from tests.support.homes import pin_model, prompts


@dataclass
class Command:
    """Runs `batchgen` in one home and keeps what it did last."""

    home: Path
    folder: Path
    env: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, *args: object, stdin: bytes | None = None) -> Result:
        """Run one command line; an exception that escapes it fails the test."""
        env = {"BATCHGEN_HOME": str(self.home), **self.env}
        words = [str(arg) for arg in args]
        return CliRunner().invoke(cli, words, input=stdin, env=env, catch_exceptions=False)

    def ok(self, *args: object, stdin: bytes | None = None) -> Result:
        """Run one command line that must succeed."""
        result = self(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result

    def json(self, *args: object) -> Any:
        """Run one command line that must succeed, and return the JSON it wrote."""
        return json.loads(self.ok(*args, "--json").stdout)

    def file(self, name: str, content: bytes) -> Path:
        """Write a file beside the home and return its path."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def submit(self, *args: object, rows: int = 4) -> str:
        """Submit a prompt file and return the id of the job."""
        prompt_file = self.file(f"prompts-{rows}.jsonl", prompts(rows))
        return self.ok("submit", prompt_file, "-m", "tiny", *args).stdout.strip()


@pytest.fixture
def batchgen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service) -> Command:
    """The command in a fresh home with one model named `tiny`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # no .env, no batchgen.toml
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("batchgen_workers.service.ending.PATIENCE", 0.0)  # there is no coordinator
    return Command(home=service.settings.home, folder=tmp_path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The library of the command's home."""
    home = tmp_path / "home"
    pin_model(home)
    service = Service(Settings(home=home))
    yield service
    service.close()


@pytest.fixture
def job(batchgen: Command, service: Service) -> JobRecord:
    """A queued job of four rows."""
    return service.job(batchgen.submit("--name", "nightly"))

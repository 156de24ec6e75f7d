"""The command in a home of its own, and the same command on a server that has that home.

A module with `PLACES = ("home", "server")` runs its tests in both, except those marked `home`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from batchgen.api.app import create_app
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.tenants.principal import Scope
from batchgen_cli.main import cli
from tests.support.homes import pin_model, prompts
from tests.support.one_server import OneServer, WithCoordinator


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

    def dataset(self, folder: Path, job: str) -> str:
        """Return where the command says that a dataset lies: its folder, or its address."""
        url = self.env.get("BATCHGEN_URL")
        return f"{url}/api/v1/jobs/{job}/results?format=parquet" if url else str(folder)

    def submit(self, *args: object, rows: int = 4) -> str:
        """Submit a prompt file and return the id of the job."""
        prompt_file = self.file(f"prompts-{rows}.jsonl", prompts(rows))
        return self.ok("submit", prompt_file, "-m", "tiny", *args).stdout.strip()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module in the places that it names."""
    if "where" in metafunc.fixturenames:
        only_home = metafunc.definition.get_closest_marker("home") is not None
        places = getattr(metafunc.module, "PLACES", ("home",))
        metafunc.parametrize("where", ("home",) if only_home else places)


@pytest.fixture
def batchgen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    where: str,
    request: pytest.FixtureRequest,
) -> Command:
    """The command on a fresh home with one model named `tiny`, which it or its server has."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # no .env, no batchgen.toml
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("batchgen_workers.service.ending.PATIENCE", 0.0)  # there is no coordinator
    command = Command(home=service.settings.home, folder=tmp_path)
    if where == "server":
        command.env = request.getfixturevalue("on_server")
    return command


@pytest.fixture
def on_server(one_server: OneServer, service: Service, tmp_path: Path) -> dict[str, str | None]:
    """The variables of a command on a server of the test's home; its own home is empty."""
    served = Service(service.settings)
    one_server.app = WithCoordinator(create_app(served), service)
    key = served.access.keys.create(LOCAL_TENANT, scopes=frozenset(Scope)).key
    return {
        "BATCHGEN_HOME": str(tmp_path / "elsewhere"),
        "BATCHGEN_URL": one_server.url,
        "BATCHGEN_API_KEY": key,
    }


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

"""The client and the command on a server, with real processes on both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet as pq
import pytest

import batchgen
from batchgen.dataset.verify import verify_dataset
from batchgen.repair.invariants import check_invariants
from batchgen.service import Service
from batchgen.settings import ServerSettings, Settings
from batchgen.tenants.principal import DEFAULT_SCOPES
from tests.support.homes import pin_model, prompts
from tests.support.installation import Installation, installation, serve, url_of
from tests.support.processes import Processes, processes

BATCHGEN = [sys.executable, "-P", "-m", "batchgen_cli.main"]
PATIENCE = 240  # seconds for one command on a busy machine


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service of a home with the model `tiny`."""
    pin_model(tmp_path / "home")
    service = Service(Settings(home=tmp_path / "home", server=ServerSettings(port=0)))
    yield service
    service.close()


@pytest.fixture
def started(service: Service, tmp_path: Path) -> Iterator[Processes]:
    with processes(service.settings, tmp_path) as started:
        yield started


@pytest.mark.parametrize("failpoint", ["submit.stored=kill", "submit.committed=kill"])
def test_a_server_that_dies_in_a_create_and_comes_back_has_one_job(
    service: Service, started: Processes, monkeypatch: pytest.MonkeyPatch, failpoint: str
) -> None:
    """The prompts are a generator, which nobody can read again."""
    server = serve(started, failpoint=failpoint)
    url = url_of(server)
    deaths: list[int] = []

    def wait(_: float) -> None:
        if not deaths:
            deaths.append(server.wait())
            port = int(httpx2.URL(url).port or 0)
            started.settings = service.settings.model_copy(
                update={"server": ServerSettings(port=port)}
            )
            assert url_of(serve(started)) == url

    monkeypatch.setattr("batchgen.client.connection.sleep", wait)
    key = service.access.keys.create("local", scopes=DEFAULT_SCOPES).key
    with batchgen.Client(url, api_key=key) as client:
        rows = ({"prompt": f"Count to {number}"} for number in range(5000))
        created = client.jobs.create(rows, model="tiny")
    assert [death < 0 for death in deaths] == [True]
    assert [job.public_id for job in service.records()] == [created.id]
    assert created.rows_total == 5000
    assert check_invariants(service.store, service.storage) == []


class Remote:
    """Runs `batchgen` of a user who has a profile in the configuration, and no home."""

    def __init__(self, folder: Path, server: Installation) -> None:
        config = folder / "config" / "batchgen" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            f'[profile.team]\nurl = "{server.url}"\napi_key = "{server.key("acme")}"\n'
        )
        self.folder = folder
        ours = {"XDG_CONFIG_HOME": str(folder / "config"), "BATCHGEN_HOME": str(folder / "none")}
        self.env = {**os.environ, **ours}

    def __call__(self, *words: object, stdin: bytes | None = None) -> bytes:
        done = subprocess.run(
            [*BATCHGEN, "--profile", "team", *map(str, words)],
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_the_command_of_a_user_without_a_home(postgres_url: str, tmp_path: Path) -> None:
    pin_model(tmp_path / "home")
    (tmp_path / "user").mkdir()
    with installation(tmp_path, database_url=postgres_url) as server:
        server.hold.release()
        batchgen = Remote(tmp_path / "user", server)
        submitted = batchgen(
            *("submit", "-", "-m", "tiny", "--name", "nightly", "--watch"), stdin=prompts(40)
        )
        public_id = submitted.decode().strip()
        status: dict[str, Any] = json.loads(batchgen("status", "nightly", "--json"))
        assert (status["id"], status["state"], status["rows"]["ok"]) == (public_id, "completed", 40)
        batchgen("results", "nightly", "-o", "answers")
        batchgen("rm", "nightly")
        assert not (tmp_path / "user" / "none").exists()
    answers = tmp_path / "user" / "answers"
    assert verify_dataset(answers) == []
    assert pq.read_table(answers / "data")["row"].to_pylist() == list(range(40))

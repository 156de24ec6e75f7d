"""worker, coordinator, up: what they check before they start, and what they start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import pytest

from batchgen.api import server
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen_workers import logs
from batchgen_workers.service import coordinator, local_stack, worker
from batchgen_workers.service.local_stack import StackEvent, StackEventKind
from tests.unit.cli.conftest import Command

Started = list[tuple[object, ...]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The commands that were started instead of the real processes."""
    started: Started = []

    def run_coordinator(settings: Settings) -> None:
        started.append(("coordinator", settings.broker_url))

    def run_worker(settings: Settings, model: str) -> None:
        started.append(("worker", model, settings.engine.device))

    def up(settings: Settings, models: Sequence[str], *, serve: bool) -> Iterator[StackEvent]:
        started.append(("up", *models))
        yield StackEvent(kind=StackEventKind.STARTED, process="coordinator", pid=7)
        if serve:
            url = f"http://127.0.0.1:{settings.server.port}"
            yield StackEvent(kind=StackEventKind.STARTED, process="server", pid=8, url=url)

    def run_server(settings: Settings) -> None:
        started.append(("server", settings.server.host, settings.server.port))

    monkeypatch.setattr(coordinator, "run_coordinator", run_coordinator)
    monkeypatch.setattr(worker, "run_worker", run_worker)
    monkeypatch.setattr(local_stack, "up", up)
    monkeypatch.setattr(server, "run_server", run_server)
    monkeypatch.setattr(logs, "configure_logging", lambda **_: None)
    return started


def test_a_worker_serves_one_model(batchgen: Command, started: Started, broker_url: str) -> None:
    batchgen.env["BATCHGEN_BROKER_URL"] = broker_url
    batchgen.ok("worker", "-m", "tiny", "--device", "cuda:1")
    assert started == [("worker", "tiny", "cuda:1")]


def test_a_coordinator(batchgen: Command, started: Started, broker_url: str) -> None:
    batchgen.env["BATCHGEN_BROKER_URL"] = broker_url
    batchgen.ok("coordinator")
    assert started == [("coordinator", broker_url)]


def test_a_server(batchgen: Command, started: Started) -> None:
    batchgen.ok("server", "--port", "8123")
    batchgen.env["BATCHGEN_SERVER__HOST"] = "::1"
    batchgen.ok("server")
    assert started == [("server", "127.0.0.1", 8123), ("server", "::1", 8000)]


def test_up_serves_several_models(batchgen: Command, started: Started) -> None:
    result = batchgen.ok("up", "-m", "tiny", "--no-server")
    assert started == [("up", "tiny")]
    assert (result.stdout, "coordinator started (pid 7)" in result.stderr) == ("", True)
    assert "OPENAI" not in result.stderr


def test_up_says_what_a_client_needs(batchgen: Command, started: Started, service: Service) -> None:
    said = batchgen.ok("up", "-m", "tiny", "--port", "8123").stderr
    assert "export OPENAI_BASE_URL=http://127.0.0.1:8123/v1" in said.splitlines()
    [shown] = [line for line in said.splitlines() if line.startswith("export OPENAI_API_KEY=")]
    script = f'{shown}; printf %s "$OPENAI_API_KEY"'
    key = subprocess.check_output(["sh", "-c", script], text=True)
    assert key.startswith("bg_") and key not in said
    assert service.access.authenticate(key) is not None


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ([], (True, "auto", "0.25")),
        (["--prefix-caching"], (True, "auto", "0.25")),
        (
            ["--no-prefix-caching", "--preemption", "swap", "--swap-memory", "2G"],
            (False, "swap", "2G"),
        ),
    ],
)
def test_the_engine_takes_its_flags(
    batchgen: Command,
    started: Started,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    chosen: tuple[bool, str, str],
) -> None:
    def run_worker(settings: Settings, model: str) -> None:
        engine = settings.engine
        started.append((engine.prefix_caching, engine.preemption, engine.swap_memory))

    monkeypatch.setattr(worker, "run_worker", run_worker)
    batchgen.env["BATCHGEN_BROKER_URL"] = broker_url
    batchgen.ok("worker", "-m", "tiny", *flags)
    assert started == [chosen]


def test_a_policy_that_does_not_exist_is_refused(
    batchgen: Command, started: Started, broker_url: str
) -> None:
    batchgen.env["BATCHGEN_BROKER_URL"] = broker_url
    result = batchgen("worker", "-m", "tiny", "--preemption", "later")
    assert (result.exit_code, started) == (2, [])
    assert "engine.preemption" in result.stderr


@pytest.mark.parametrize("command", ["worker", "up"])
def test_an_unknown_model_starts_nothing(batchgen: Command, started: Started, command: str) -> None:
    result = batchgen(command, "-m", "tinny")
    assert (result.exit_code, started) == (4, [])
    assert "Did you mean tiny?" in result.stderr


@pytest.mark.parametrize(
    "words", [("worker", "-m", "tiny"), ("coordinator",)], ids=["worker", "coordinator"]
)
def test_an_exposed_broker_is_refused_unless_that_is_meant(
    batchgen: Command,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("batchgen.service.broker.ping", asked.append)
    batchgen.env["BATCHGEN_BROKER_URL"] = "redis://:s3cret@broker.internal:6379/0"
    result = batchgen(*words)
    assert (result.exit_code, asked, started) == (2, [], [])
    assert "BATCHGEN_BROKER_URL" in result.stderr
    assert "s3cret" not in result.output
    batchgen.ok(*words, "--insecure")
    assert (len(asked), len(started)) == (1, 1)


def test_every_command_refuses_an_exposed_database(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_DATABASE_URL"] = "postgresql://user:s3cret@db.internal/db"
    for words in (("ls",), ("db", "upgrade"), ("db", "check"), ("up", "-m", "tiny")):
        result = batchgen(*words)
        assert result.exit_code == 2, words
        assert "BATCHGEN_INSECURE=1" in result.stderr
        assert "s3cret" not in result.output

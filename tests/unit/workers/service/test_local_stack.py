from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from batchgen.errors import BatchgenError, HomeLocked, InvalidParameter, SchemaMismatch
from batchgen.settings import ServerSettings, Settings
from batchgen_workers.service import local_stack
from batchgen_workers.service.home_lock import locked_home
from batchgen_workers.service.local_process import TRY_AGAIN
from batchgen_workers.service.local_stack import MAX_RESTARTS, StackEvent, StackEventKind, up
from batchgen_workers.testing import FAST
from tests.support.homes import pin_model
from tests.support.workers import is_alive


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_stack, "RESTART_PAUSE", 0.0)


def take(events: Iterator[StackEvent], count: int) -> list[StackEvent]:
    return [next(events) for _ in range(count)]


def test_an_event_is_a_phrase() -> None:
    event = StackEvent(kind=StackEventKind.STARTED, process="worker tiny", pid=12)
    assert str(event) == "worker tiny started (pid 12)"
    event = StackEvent(kind=StackEventKind.STARTED, process="server", pid=9, url="http://a:1")
    assert str(event) == "server started at http://a:1 (pid 9)"
    event = StackEvent(kind=StackEventKind.ENDED, process="broker", pid=13, status=-9)
    assert str(event) == "broker ended (pid 13, exit status -9)"


def test_broker_coordinator_and_workers_start_in_this_order_and_end_with_the_iteration(
    home: Path,
) -> None:
    pin_model(home)
    pin_model(home, "other")
    events = up(Settings(home=home, drain_grace=0.0), ["tiny", "other"], factory=FAST)
    started = take(events, 4)
    assert [event.process for event in started] == [
        "broker",
        "coordinator",
        "worker tiny",
        "worker other",
    ]
    events.close()  # type: ignore[attr-defined]
    assert not any(is_alive(event.pid) for event in started)


def test_a_configured_broker_is_used(home: Path, broker_url: str) -> None:
    events = up(Settings(home=home, broker_url=broker_url), [])
    assert next(events).process == "coordinator"
    events.close()  # type: ignore[attr-defined]


def test_a_server_that_dies_keeps_its_address_and_refuses_nobody(
    home: Path, broker_url: str
) -> None:
    settings = Settings(home=home, broker_url=broker_url, server=ServerSettings(port=0))
    events = up(settings, [], serve=True)
    _, server = take(events, 2)
    healthz = f"{server.url}/healthz"
    assert httpx2.get(healthz, timeout=60).json() == {"status": "ok"}
    os.kill(server.pid, signal.SIGKILL)
    ended, again = take(events, 2)
    assert (ended.process, ended.kind, again.kind) == (
        "server",
        StackEventKind.ENDED,
        StackEventKind.STARTED,
    )
    assert httpx2.get(healthz, timeout=60).json() == {"status": "ok"}
    events.close()  # type: ignore[attr-defined]
    assert not is_alive(again.pid)


def test_an_address_in_use_starts_nothing(home: Path, broker_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerSettings(port=taken.getsockname()[1])
        settings = Settings(home=home, broker_url=broker_url, server=server)
        with pytest.raises(InvalidParameter, match="--port"):
            next(up(settings, [], serve=True))


def test_what_cannot_run_ends_the_stack_with_a_reason(home: Path) -> None:
    events = up(Settings(home=home), ["missing"])
    started = take(events, 3)
    with pytest.raises(BatchgenError, match="worker missing cannot run"):
        list(events)
    assert not any(is_alive(event.pid) for event in started)


def test_a_process_that_ends_again_and_again_ends_the_stack(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_stack, "MAX_RESTARTS", 2)
    pin_model(home)
    # an engine that cannot be imported: exit status 1 each time
    events = up(Settings(home=home), ["tiny"], factory="batchgen_nowhere:Engine")
    seen: list[StackEvent] = []
    with pytest.raises(BatchgenError, match="ended 3 times"):
        for event in events:
            seen.append(event)
    ended = [event for event in seen if event.kind is StackEventKind.ENDED]
    assert [event.status for event in ended] == [1, 1, 1]


def test_a_process_that_waits_is_no_crash_and_says_so_once(
    home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[str] = []

    def spawn(settings: Settings, name: str, *_: str) -> subprocess.Popen[bytes]:
        spawned.append(name)
        if spawned.count(name) == 2 * MAX_RESTARTS:
            os.kill(os.getpid(), signal.SIGTERM)
        status = 0 if name == "coordinator" else TRY_AGAIN
        code = f"import sys; {status} or sys.stdin.read(); sys.exit({status})"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)

    monkeypatch.setattr(local_stack, "spawn", spawn)
    events = list(up(Settings(home=home, broker_url=broker_url), ["tiny"]))
    kinds = [event.kind for event in events if event.process == "worker tiny"]
    assert kinds[:2] == [StackEventKind.STARTED, StackEventKind.WAITING]
    assert StackEventKind.WAITING not in kinds[2:]
    assert StackEventKind.ENDED not in kinds
    assert spawned.count("worker") >= 2 * MAX_RESTARTS


def test_a_second_stack_of_a_home_ends_before_it_starts_anything(
    home: Path, broker_url: str
) -> None:
    settings = Settings(home=home, broker_url=broker_url)
    events = up(settings, [])
    next(events)
    with pytest.raises(HomeLocked, match=f"process {os.getpid()} on .*batchgen down"):
        next(up(settings, []))
    events.close()  # type: ignore[attr-defined]
    following = up(settings, [])
    assert next(following).process == "coordinator"
    following.close()  # type: ignore[attr-defined]


def test_a_stack_does_not_start_beside_a_coordinator_of_its_own(
    home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_stack, "ORPHAN_LIMIT", 0.0)
    with locked_home(home), pytest.raises(HomeLocked, match=f"process {os.getpid()} "):
        next(up(Settings(home=home, broker_url=broker_url), []))


def test_nothing_is_started_on_a_database_of_another_schema(
    home: Path, empty_postgres_url: str
) -> None:
    events = up(Settings(home=home, database_url=empty_postgres_url), ["tiny"])
    with pytest.raises(SchemaMismatch):
        next(events)

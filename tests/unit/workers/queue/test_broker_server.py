from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis

from batchgen.errors import BrokerUnavailable
from batchgen_workers.queue import broker_server
from batchgen_workers.queue.broker_server import BrokerServer, find_program


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BrokerServer]:
    server = BrokerServer(tmp_path)
    yield server
    server.remove()


def client_of(server: BrokerServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://"))


def test_the_server_answers_on_its_socket_and_refuses_rather_than_forgets(
    server: BrokerServer,
) -> None:
    process = server.start()
    try:
        with client_of(server) as client:
            config = client.config_get("*")
            assert config["maxmemory-policy"] == "noeviction"
            assert config["port"] == "0"
            assert config["save"] == ""
        path = Path(server.url.removeprefix("redis+socket://"))
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
    finally:
        process.terminate()
        process.wait()


def test_the_server_starts_again_at_the_same_address(server: BrokerServer) -> None:
    for _ in range(2):
        process = server.start()
        with client_of(server) as client:
            assert client.dbsize() == 0
            client.set("key", "value")
        process.kill()
        process.wait()


def test_a_socket_has_a_path_that_the_kernel_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("long" * 30)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    server = BrokerServer(tmp_path)
    process = server.start()
    try:
        with client_of(server) as client:
            assert client.ping()
    finally:
        process.kill()
        process.wait()
        server.remove()


def test_a_path_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = tmp_path / ("long" * 30)
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    monkeypatch.setattr("batchgen_workers.queue.socket_folder.ELSEWHERE", ())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(far))
    with pytest.raises(BrokerUnavailable, match=r"longer than 107 bytes\. Set TMPDIR") as caught:
        BrokerServer(tmp_path)
    assert str(far) in caught.value.message


def test_nothing_is_left_behind(server: BrokerServer) -> None:
    path = Path(server.url.removeprefix("redis+socket://"))
    assert path.parent.is_dir()
    server.remove()
    assert not path.parent.exists()


def test_the_folder_of_one_that_was_killed_is_taken_over(
    server: BrokerServer, tmp_path: Path
) -> None:
    folder = Path(server.url.removeprefix("redis+socket://")).parent
    (folder / "1.sock").touch()
    again = BrokerServer(tmp_path)
    assert Path(again.url.removeprefix("redis+socket://")).parent == folder
    assert list(folder.iterdir()) == []
    other = BrokerServer(tmp_path / "other")
    other.remove()
    assert folder.is_dir()


def test_a_folder_that_is_no_folder_of_ours_is_not_used(
    server: BrokerServer, tmp_path: Path
) -> None:
    folder = Path(server.url.removeprefix("redis+socket://")).parent
    server.remove()
    folder.symlink_to(tmp_path)
    try:
        elsewhere = BrokerServer(tmp_path)
        assert elsewhere.url.rpartition("/")[0] != server.url.rpartition("/")[0]
        elsewhere.remove()
        assert tmp_path.is_dir()
    finally:
        folder.unlink()


def test_a_program_that_does_not_start_is_a_named_error(
    server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_server, "find_program", lambda: Path("/bin/false"))
    with pytest.raises(BrokerUnavailable, match="/bin/false does not start"):
        server.start()


def test_without_the_wheel_a_program_on_the_path_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_server, "find_spec", _no_wheel)
    monkeypatch.setattr(shutil, "which", {"redis-server": "/usr/bin/redis-server"}.get)
    assert find_program() == Path("/usr/bin/redis-server")


def test_without_any_program_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_server, "find_spec", _no_wheel)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BrokerUnavailable, match="install Valkey or Redis"):
        find_program()


def _no_wheel(name: str) -> ModuleSpec | None:
    return None

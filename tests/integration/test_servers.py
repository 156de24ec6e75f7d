"""The servers the tests themselves stand on: found, brought by a wheel, or missed aloud."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest
import redis

from tests.support import servers
from tests.support.servers import running_broker, running_postgres, server_folder


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide every server but those of the wheels."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(servers, "DEBIAN", tmp_path)


@pytest.mark.usefixtures("nothing_installed")
def test_postgresql_comes_with_a_wheel() -> None:
    with server_folder("bgpg-") as folder:
        with running_postgres(folder) as url, psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1 + 1").fetchone() == (2,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url).close()
    assert not folder.exists()


@pytest.mark.usefixtures("nothing_installed")
def test_a_broker_comes_with_a_wheel() -> None:
    with server_folder("bgvk-") as folder:
        with running_broker(folder) as url, redis.Redis.from_url(url) as client:
            assert client.ping()
        with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()


@pytest.mark.usefixtures("nothing_installed")
def test_no_server_at_all_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    for running in (running_postgres, running_broker):
        with (
            server_folder("bgno-") as folder,
            pytest.raises(pytest.fail.Exception, match="install"),
            running(folder),
        ):
            pass


def test_each_test_finds_the_broker_empty(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert client.dbsize() == 0
        client.set("left behind", "by this test")


def test_and_so_does_the_next(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert client.dbsize() == 0
        client.set("left behind", "by this test")

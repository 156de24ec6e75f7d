from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import ExitStack

import pytest

from batchgen.telemetry import metrics_server as module
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.metrics_server import metrics_server

LOOPBACK = "127.0.0.1"


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        found: int = probe.getsockname()[1]
        return found


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics") as answer:
        body: bytes = answer.read()
        return body.decode()


def test_the_metrics_of_a_process_are_served_for_the_block(port: int) -> None:
    with metrics_server(Process.COORDINATOR, host=LOOPBACK, port=port) as taken:
        text = scrape(taken)
        assert "batchgen_leases_reaped_total" in text
        assert "batchgen_requests_total" not in text
    with pytest.raises(OSError):
        scrape(taken)
    assert "metrics" not in {thread.name for thread in threading.enumerate()}


def test_workers_of_one_machine_take_ports_one_after_the_other(port: int) -> None:
    with ExitStack() as opened:
        taken = [
            opened.enter_context(metrics_server(Process.WORKER, host=LOOPBACK, port=port))
            for _ in range(3)
        ]
        assert len(set(taken)) == 3 and min(taken) == taken[0] >= port
        assert all("batchgen_shards_finished_total" in scrape(each) for each in taken)


def test_without_a_free_port_there_is_an_error(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTS_TRIED", 1)
    with (
        metrics_server(Process.WORKER, host=LOOPBACK, port=port),
        pytest.raises(OSError),
        metrics_server(Process.WORKER, host=LOOPBACK, port=port),
    ):
        pass


def test_a_client_that_says_nothing_keeps_no_other_out(port: int) -> None:
    with (
        metrics_server(Process.WORKER, host=LOOPBACK, port=port) as taken,
        socket.create_connection((LOOPBACK, taken)),
    ):
        assert scrape(taken)

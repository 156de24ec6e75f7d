from __future__ import annotations

import json
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from batchgen.core.engine_stats import EngineStats
from batchgen.settings import MetricsSettings, Settings
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.engine_figures import EngineFigures, EngineReading
from batchgen.telemetry.registries import exposition
from batchgen_workers.logs import get_logger
from batchgen_workers.observing import observed
from tests.support.logs import logging_to_stderr

FIGURES = EngineFigures(lambda: EngineReading(stats=EngineStats(), running=7, shards=1))
RUNNING = b"batchgen_num_requests_running 7.0"


def events(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return {line["event"]: line for line in lines}


def test_without_a_port_nothing_listens(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with observed(Settings(home=tmp_path), Process.WORKER, id="host/1", figures=FIGURES):
        assert set(threading.enumerate()) == before
        assert RUNNING in exposition(Process.WORKER)[0]
    assert RUNNING not in exposition(Process.WORKER)[0]


@pytest.mark.parametrize("process", Process)
def test_each_process_has_its_own_port_on_loopback(
    tmp_path: Path, process: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    metrics = MetricsSettings.model_validate({f"{process}_port": port})
    settings = Settings(home=tmp_path, metrics=metrics)
    with (
        logging_to_stderr(),
        observed(settings, process, id="host/1", figures=FIGURES, model="tiny"),
    ):
        served = events(capsys)["metrics served"]
        assert served["host"] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{served['port']}/metrics") as answer:
            text = answer.read()
    assert RUNNING in text
    assert f'process="{process}"'.encode() in text and b'model="tiny"' in text


def test_a_port_that_cannot_be_had_stops_no_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = MetricsSettings(host="203.0.113.1", worker_port=1)  # an address of no machine
    settings = Settings(home=tmp_path, metrics=metrics)
    with logging_to_stderr(), observed(settings, Process.WORKER, id="host/1", figures=FIGURES):
        assert "metrics not served" in events(capsys)


def test_each_line_of_each_thread_names_the_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(event: str) -> None:
        get_logger("batchgen.test").info(event, shard=3)

    with logging_to_stderr():
        settings = Settings(home=tmp_path)
        with observed(settings, Process.WORKER, id="host/1/abc", figures=FIGURES):
            thread = threading.Thread(target=say, args=("inside",))
            thread.start()
            thread.join()
        say("after")
    found = events(capsys)
    assert (found["inside"]["worker"], found["inside"]["shard"]) == ("host/1/abc", 3)
    assert "worker" not in found["after"]

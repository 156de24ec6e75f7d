"""Real processes as operators see them: metrics at their ports, traces, ids in their logs."""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from batchgen.core.states import JobState
from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen.settings import MetricsSettings, Settings
from batchgen_workers import testing
from tests.support.homes import pin_model
from tests.support.processes import Process, await_end, processes
from tests.support.workers import submit_rows, wait_until

MARKER = "zebracrossing"  # in every prompt
ROWS = 40


class Collector(ThreadingHTTPServer):
    """A collector of traces on the loopback, which keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{collector.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield collector
    collector.shutdown()
    thread.join()
    collector.server_close()


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str, broker_url: str) -> Settings:
    return Settings(
        home=tmp_path / "home",
        database_url=postgres_url,
        broker_url=broker_url,
        heartbeat_interval=0.5,
        drain_grace=1.0,
        metrics=MetricsSettings(coordinator_port=20_464, worker_port=20_564),
        tracing=True,
    )


def lines(process: Process) -> list[dict[str, object]]:
    """Return the events of a process's log."""
    text = process.log.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def scrape(process: Process) -> tuple[dict[str, float], bytes]:
    """Return {name: sum over all labels} of the metrics at the port that the log names."""
    wait_until(lambda: process.said("metrics served"))
    (served,) = [line for line in lines(process) if line["event"] == "metrics served"]
    with urllib.request.urlopen(f"http://{served['host']}:{served['port']}/metrics") as answer:
        body: bytes = answer.read()
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals, body


def await_figure(process: Process, name: str, value: float) -> None:
    """Wait until a metric has this value: the last report of an engine comes after its rows."""
    wait_until(lambda: scrape(process)[0].get(name) == value)


def test_a_job_is_seen_by_metrics_traces_and_logs_and_its_prompts_by_none(
    settings: Settings, collector: Collector, tmp_path: Path
) -> None:
    model = pin_model(settings.home)
    store = Store(Database(settings.database_url))
    rows = [{"id": f"{at}", "prompt": f"{MARKER} {at}", "temperature": 0} for at in range(ROWS)]
    with processes(settings, tmp_path) as started:
        job = submit_rows(store, settings.home, model, rows, start=False)
        coordinator, worker = started.coordinator(), started.worker(testing.FAST)
        await_end(store, job)
        assert store.jobs.by_id(job.id).state is JobState.COMPLETED
        n_shards = len(store.jobs.shards(job.id))
        await_figure(worker, "batchgen_shards_finished_total", n_shards)
        await_figure(worker, "batchgen_generation_tokens_total", ROWS * testing.DEFAULT_TOKENS)
        await_figure(coordinator, "batchgen_jobs_ended_total", 1)
        of_coordinator, shown = scrape(coordinator)
        of_worker, also_shown = scrape(worker)
        for process in (worker, coordinator):
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    store.close()

    assert of_coordinator["batchgen_shards_published_total"] >= n_shards
    assert of_coordinator["batchgen_parquet_rows_written_total"] == ROWS
    assert of_coordinator["batchgen_database_up"] == 1
    assert of_worker["batchgen_requests_total"] == ROWS
    assert of_worker["batchgen_parquet_rows_written_total"] == ROWS

    spans = [span for span in collector.spans if span.trace_id.hex() == job.public_id]
    names = sorted(span.name for span in spans)
    assert names == sorted(["job", "wait", "compute", "finalize", *["shard"] * n_shards])
    (root,) = [span for span in spans if span.name == "job"]
    assert {span.parent_span_id for span in spans if span is not root} == {root.span_id}

    (finished, *_) = [line for line in lines(worker) if line["event"] == "shard finished"]
    assert finished["job"] == job.public_id and "shard" in finished
    assert all("worker" in line for line in lines(worker) if line["event"].startswith("shard"))  # type: ignore[attr-defined]
    (ended,) = [line for line in lines(coordinator) if line["event"] == "job ended"]
    assert ended["job"] == job.public_id and "coordinator" in ended

    logs = worker.log.read_bytes() + coordinator.log.read_bytes()
    assert MARKER.encode() not in shown + also_shown + logs + b"".join(collector.bodies)

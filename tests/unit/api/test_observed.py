from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.spans import SpanWriter
from batchgen.telemetry.tracing import writing
from tests.support.api import Api
from tests.support.logs import logging_to_stderr
from tests.support.metrics import Changes

TRACE = "0198aaaabbbb7cccdddd0123456789ab"


def requests(changes: Changes) -> dict[str, float]:
    """Return the numbers of answers, by labels."""
    name = "batchgen_http_requests_total"
    return {key[len(name) :]: n for key, n in changes().items() if key.startswith(name)}


def test_an_answer_is_counted_under_its_route(api: Api) -> None:
    changes = Changes(Process.SERVER)
    api.anonymous.get("/healthz")
    api.anonymous.get("/readyz")
    api.ours.get("/readyz?key=secret")
    api.ours.get("/v1/models/tiny")
    api.ours.get("/api/v1/models")
    found = changes()
    assert found['batchgen_http_requests_total{method="GET",route="/healthz",status="200"}'] == 1
    assert found['batchgen_http_requests_total{method="GET",route="/readyz",status="401"}'] == 1
    for route in ("/v1/models/{model:path}", "/api/v1/models"):
        labels = f'{{method="GET",route="{route}",status="200"}}'
        assert found[f"batchgen_http_requests_total{labels}"] == 1
    assert found['batchgen_http_request_duration_seconds_count{method="GET",route="/readyz"}'] == 2
    assert "batchgen_http_requests_in_progress" not in found  # as many ended as began


def test_no_path_and_no_method_of_a_caller_becomes_a_time_series(api: Api) -> None:
    changes = Changes(Process.SERVER)
    for number in range(3):
        api.ours.get(f"/nowhere/{number}")
        api.ours.request(f"METHOD{number}", f"/nowhere/{number}")
    assert requests(changes) == {
        '{method="GET",route="unmatched",status="404"}': 3,
        '{method="OTHER",route="unmatched",status="404"}': 3,
    }


def test_an_unexpected_error_is_a_500(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a prompt")

    monkeypatch.setattr("batchgen.api.health.failing_checks", fail)
    changes = Changes(Process.SERVER)
    assert api.ours.get("/readyz").status_code == 500
    assert requests(changes) == {'{method="GET",route="/readyz",status="500"}': 1}


def test_a_line_of_the_log_names_the_request_and_no_more(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    client = api.ours
    with logging_to_stderr():
        answer = client.get("/healthz?prompt=secret")
    (line,) = [
        each
        for each in map(json.loads, capsys.readouterr().err.splitlines())
        if each["event"] == "request answered"
    ]
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/healthz", 200)
    assert "secret" not in json.dumps(line)


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    writer = SpanWriter(Process.SERVER, SimpleSpanProcessor(exporter))
    with writing(writer):
        yield exporter
    writer.close()


def test_fastapi_itself_exports_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    provider.get_tracer("test").start_span("seen").end()
    api.anonymous.get("/healthz?prompt=secret")
    assert [span.name for span in exporter.get_finished_spans()] == ["seen"]


def test_a_request_has_a_span_that_continues_its_caller_s(
    api: Api, exporter: InMemorySpanExporter
) -> None:
    headers = {"traceparent": f"00-{TRACE}-00000000000000ff-01"}
    answer = api.anonymous.get("/healthz?prompt=secret", headers=headers)
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /healthz"
    context = span.get_span_context()
    assert context is not None and f"{context.trace_id:032x}" == TRACE
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/healthz",
        "http.response.status_code": 200,
        "batchgen.request": answer.headers["x-request-id"],
    }

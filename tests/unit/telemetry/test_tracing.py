from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from batchgen.errors import InvalidParameter
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.spans import SpanWriter
from batchgen.telemetry.tracing import (
    Stage,
    active_writer,
    record_job,
    record_stage,
    tracing,
    writing,
)

JOB = "0198aaaabbbb7cccdddd0123456789ab"
COMPUTE = Stage(job=JOB, name="compute", began=10.5, ended=12.0, attributes={"rows": 3})


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    writer = SpanWriter(Process.WORKER, SimpleSpanProcessor(exporter))
    with writing(writer):
        yield exporter
    writer.close()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def test_the_trace_of_a_job_has_its_id_whichever_process_writes_first(
    exporter: InMemorySpanExporter,
) -> None:
    record_stage(COMPUTE)
    record_job(Stage(job=JOB, name="job", began=10.0, ended=12.0))
    spans = by_name(exporter)
    trace, root = ids(spans["job"])
    assert trace == JOB and spans["job"].parent is None
    parent = spans["compute"].parent
    assert parent is not None and f"{parent.span_id:016x}" == root
    assert ids(spans["compute"])[0] == JOB and ids(spans["compute"])[1] != root


def test_a_stage_has_its_times_and_what_is_known_of_it(exporter: InMemorySpanExporter) -> None:
    record_stage(COMPUTE)
    span = by_name(exporter)["compute"]
    assert (span.start_time, span.end_time) == (10_500_000_000, 12_000_000_000)
    assert dict(span.attributes or {}) == {"batchgen.job": JOB, "batchgen.rows": 3}
    assert span.resource.attributes["service.name"] == "batchgen-worker"


def test_spans_after_a_job_have_ids_of_their_own(exporter: InMemorySpanExporter) -> None:
    record_job(Stage(job=JOB, name="job", began=1.0, ended=2.0))
    writer = active_writer()
    assert writer is not None
    with writer.request("GET", {}):
        pass
    spans = by_name(exporter)
    assert ids(spans["GET"])[0] != JOB


def test_a_request_continues_the_trace_of_its_caller(exporter: InMemorySpanExporter) -> None:
    writer = active_writer()
    assert writer is not None
    with writer.request("GET", {"traceparent": f"00-{JOB}-00000000000000ff-01"}):
        pass
    span = by_name(exporter)["GET"]
    assert ids(span)[0] == JOB
    assert span.parent is not None and span.parent.span_id == 0xFF


def test_no_message_of_an_exception_is_exported(exporter: InMemorySpanExporter) -> None:
    writer = active_writer()
    assert writer is not None
    with pytest.raises(ValueError), writer.request("POST", {}):
        raise ValueError("a prompt")
    span = by_name(exporter)["POST"]
    assert span.status.status_code is StatusCode.ERROR
    assert "a prompt" not in span.to_json() and not span.events
    assert (span.attributes or {})["error.type"] == "ValueError"


def test_without_tracing_nothing_is_written() -> None:
    assert active_writer() is None
    record_stage(COMPUTE)
    with tracing(Process.WORKER, enabled=False):
        assert active_writer() is None


def test_tracing_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "batchgen.telemetry.spans", None)
    with (
        pytest.raises(InvalidParameter, match=r"pip install 'batchgen\[otel\]'"),
        tracing(Process.WORKER, enabled=True),
    ):
        pass


def test_spans_are_exported_while_tracing_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with tracing(Process.SERVER, enabled=True):
        assert active_writer() is not None
    assert active_writer() is None

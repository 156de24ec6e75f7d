"""Writes spans with OpenTelemetry's SDK, which is the extra `otel`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from batchgen import __version__
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.tracing import Stage

NANOSECONDS: Final = 1_000_000_000  # in a second

_propagator = TraceContextTextMapPropagator()


def exporting_writer(process: Process) -> SpanWriter:
    """Return a writer that sends spans where the variables OTEL_EXPORTER_OTLP_… say."""
    return SpanWriter(process, BatchSpanProcessor(OTLPSpanExporter()))


class SpanWriter:
    """Writes the spans of one process."""

    def __init__(self, process: Process, processor: SpanProcessor) -> None:
        """Prepare a writer whose spans go to `processor`."""
        self._ids = _JobIds()
        resource = {"service.name": f"batchgen-{process}", "service.version": __version__}
        self._provider = TracerProvider(
            resource=Resource.create(resource), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("batchgen", __version__)

    def write_stage(self, stage: Stage) -> None:
        """Write a span below the root of the job's trace, which may not have been written yet."""
        self._write(stage, set_span_in_context(NonRecordingSpan(_root_of(stage.job))))

    def write_job(self, job: Stage) -> None:
        """Write the root of a job's trace."""
        with self._ids.of(_root_of(job.job)):
            self._write(job, Context())

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Write a span of an HTTP request; it continues the trace that its headers name."""
        # An exception's message may quote a prompt, so only its class is kept.
        with self._tracer.start_as_current_span(
            method,
            context=_propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _write(self, stage: Stage, context: Context) -> None:
        span = self._tracer.start_span(
            stage.name,
            context=context,
            start_time=round(stage.began * NANOSECONDS),
            attributes={"batchgen.job": stage.job}
            | {f"batchgen.{name}": value for name, value in stage.attributes.items()},
        )
        span.end(round(stage.ended * NANOSECONDS))


def _root_of(job: str) -> SpanContext:
    """Return the context of a job's root: the trace has the id of the job, 32 hex digits."""
    number = int(job, 16)
    return SpanContext(
        trace_id=number,
        span_id=number & (2**64 - 1) or 1,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


class _JobIds(RandomIdGenerator):
    """Gives the root of a job's trace its ids, and all other spans random ones."""

    def __init__(self) -> None:
        self._thread = threading.local()

    @contextmanager
    def of(self, root: SpanContext) -> Iterator[None]:
        """Give the next span of this thread the ids of `root`, for the block."""
        self._thread.root = root
        try:
            yield
        finally:
            self._thread.root = None

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        root: SpanContext | None = getattr(self._thread, "root", None)
        return root.span_id if root else super().generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the id of the next trace."""
        root: SpanContext | None = getattr(self._thread, "root", None)
        return root.trace_id if root else super().generate_trace_id()

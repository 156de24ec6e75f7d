"""Traces of jobs and of HTTP requests, if the operator wants them.

Without `tracing` in the settings nothing of OpenTelemetry is imported, and a stage costs one
comparison. The trace of a job has the job's id, so that every process adds to it without being
told: its root is the job, and its stages and the attempts of its shards are below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchgen.errors import InvalidParameter
from batchgen.telemetry.catalogue import Process

if TYPE_CHECKING:
    from batchgen.telemetry.spans import SpanWriter

_writer: SpanWriter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a job's life, with times in seconds since the epoch; it names no prompt."""

    job: str  # public id
    name: str
    began: float
    ended: float
    attributes: Mapping[str, str | int] = field(default_factory=dict)


def record_stage(stage: Stage) -> None:
    """Write a stage below its job."""
    if _writer is not None:
        _writer.write_stage(stage)


def record_job(job: Stage) -> None:
    """Write the root of a job's trace, once the job has ended."""
    if _writer is not None:
        _writer.write_job(job)


def active_writer() -> SpanWriter | None:
    """Return what writes spans in this process, None without tracing."""
    return _writer


@contextmanager
def tracing(process: Process, *, enabled: bool) -> Iterator[None]:
    """Export traces for the block, if that is enabled.

    Raises InvalidParameter if OpenTelemetry is not installed.
    """
    if not enabled:
        yield
        return
    try:
        from batchgen.telemetry.spans import exporting_writer
    except ModuleNotFoundError:
        raise InvalidParameter(
            "Tracing needs OpenTelemetry: pip install 'batchgen[otel]'.", param="tracing"
        ) from None
    writer = exporting_writer(process)
    try:
        with writing(writer):
            yield
    finally:
        writer.close()


@contextmanager
def writing(writer: SpanWriter) -> Iterator[None]:
    """Let `writer` write the spans of this process for the block."""
    global _writer
    _writer = writer
    try:
        yield
    finally:
        _writer = None

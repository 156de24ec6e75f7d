"""Lets operators see a process that lives long: its metrics on a port, its traces, its log ids."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from batchgen.settings import MetricsSettings, Settings
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.metrics_server import metrics_server
from batchgen.telemetry.registries import REGISTRIES, describe_process
from batchgen.telemetry.tracing import tracing
from batchgen_workers.logs import get_logger, named_process

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


log = get_logger(__name__)


def process_name() -> str:
    """Return the name of this process in logs, and in SQL as the owner of a final lease."""
    return f"{socket.gethostname()}/{os.getpid()}"


@contextmanager
def observed(
    settings: Settings,
    process: Process,
    *,
    id: str,
    figures: Collector | None = None,
    model: str = "",
) -> Iterator[None]:
    """Show this process for the block: `id` in each line of its log, `figures` in its metrics.

    Raises InvalidParameter if traces are wanted and OpenTelemetry is not installed.
    """
    with ExitStack() as opened:
        opened.enter_context(named_process(**{process.value: id}))
        opened.enter_context(tracing(process, enabled=settings.tracing))
        describe_process(process, model=model)
        if figures is not None:
            REGISTRIES[process].register(figures)
            opened.callback(REGISTRIES[process].unregister, figures)
        if port := _port_of(process, settings.metrics):
            _serve(opened, process, settings.metrics.host, port)
        yield


def _port_of(process: Process, settings: MetricsSettings) -> int:
    ports = {
        Process.SERVER: settings.server_port,
        Process.COORDINATOR: settings.coordinator_port,
        Process.WORKER: settings.worker_port,
    }
    return ports[process]


def _serve(opened: ExitStack, process: Process, host: str, port: int) -> None:
    """Serve the metrics; a process that cannot do that goes on working."""
    try:
        taken = opened.enter_context(metrics_server(process, host=host, port=port))
    except OSError as error:
        log.error("metrics not served", host=host, port=port, error=str(error))
    else:
        log.info("metrics served", host=host, port=taken)

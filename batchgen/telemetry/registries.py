"""One registry of metrics for each kind of process, and how a client reads it."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from batchgen import __version__
from batchgen.telemetry.catalogue import INFO, Process

# Each counter would bring a second time series, with the moment at which it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]


#: What a process of this kind shows. `batchgen run` is of two kinds, and shows nothing.
REGISTRIES: Final = {process: CollectorRegistry() for process in Process}

_infos: Final = {
    process: Gauge(INFO.name, INFO.help, INFO.labels, registry=registry)
    for process, registry in REGISTRIES.items()
}


def describe_process(process: Process, *, model: str = "") -> None:
    """Say what this process is; of a worker, which model it computes."""
    _infos[process].clear()
    _infos[process].labels(process, __version__, model).set(1)


def exposition(process: Process, *, accept: str = "") -> tuple[bytes, str]:
    """Return the present metrics and their content type, in a form that a client accepts."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRIES[process]), content_type


for _process, _registry in REGISTRIES.items():
    ProcessCollector(registry=_registry)
    describe_process(_process)

"""Reads metrics and their changes: the counters of a process are those of all its tests."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.registries import REGISTRIES


def samples(source: Collector | CollectorRegistry) -> dict[str, float]:
    """Return {name{label="value"}: value} of our own metrics, without the buckets."""
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in source.collect()
        for sample in family.samples
        if sample.name.startswith("batchgen_") and "le" not in sample.labels
    }


def _labels(labels: dict[str, str]) -> str:
    words = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{words}}}" if words else ""


class Changes:
    """Called, it returns by how much each metric of a process has changed since it was made."""

    def __init__(self, process: Process) -> None:
        self._registry = REGISTRIES[process]
        self._before = samples(self._registry)

    def __call__(self) -> dict[str, float]:
        now = samples(self._registry)
        changes = {name: round(value - self._before.get(name, 0), 6) for name, value in now.items()}
        return {name: change for name, change in changes.items() if change}

"""The table of docs/metrics.md, as the catalogue of metrics makes it."""

from __future__ import annotations

from batchgen.telemetry.catalogue import CATALOGUE, Metric


def row(metric: Metric) -> str:
    """Return the row of one metric."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    processes = ", ".join(metric.processes)
    return f"| `{metric.name}` | {metric.kind} | {processes} | {labels} | {metric.help} |"


def table() -> str:
    """Return the rows of all metrics."""
    return "\n".join(row(metric) for metric in CATALOGUE)

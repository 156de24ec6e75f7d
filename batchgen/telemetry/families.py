"""Makes Prometheus's records of values that are read at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)

from batchgen.telemetry.catalogue import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family


def gauge(metric: Metric, value: float) -> Family:
    """Return the record of a gauge without labels."""
    return GaugeMetricFamily(metric.name, metric.help, value=value)


def gauges(metric: Metric, values: Mapping[str, float]) -> Family:
    """Return the records of a gauge by the value of its only label."""
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def total(metric: Metric, value: float) -> Family:
    """Return the record of a counter without labels."""
    return CounterMetricFamily(metric.name, metric.help, value=value)


def summary(metric: Metric, *, count: int, total: float) -> Family:
    """Return the record of a summary from the count and the sum of its values."""
    return SummaryMetricFamily(metric.name, metric.help, count_value=count, sum_value=total)

"""The counters of the processes. Each number is counted in one place, by one call.

Counters are kept whether or not anybody reads them: an increment takes about a microsecond.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from batchgen.core.rows import Generation
from batchgen.telemetry import catalogue
from batchgen.telemetry.catalogue import Metric
from batchgen.telemetry.registries import REGISTRIES

# Seconds: rows of a batch take seconds to minutes, HTTP requests moments.
ROW_SECONDS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
HTTP_SECONDS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)

Kept = TypeVar("Kept", bound=MetricWrapperBase)


def _kept(kind: type[Kept], metric: Metric, **options: Any) -> Kept:
    made = kind(metric.name, metric.help, metric.labels, registry=None, **options)
    for process in metric.processes:
        REGISTRIES[process].register(made)
    return made


http_requests = _kept(Counter, catalogue.HTTP_REQUESTS)
http_duration = _kept(Histogram, catalogue.HTTP_DURATION, buckets=HTTP_SECONDS)
http_in_progress = _kept(Gauge, catalogue.HTTP_IN_PROGRESS)

ticks = _kept(Counter, catalogue.TICKS)
jobs_ended = _kept(Counter, catalogue.JOBS_ENDED)
shards_published = _kept(Counter, catalogue.SHARDS_PUBLISHED)
leases_reaped = _kept(Counter, catalogue.LEASES_REAPED)
webhook_attempts = _kept(Counter, catalogue.WEBHOOK_ATTEMPTS)
parquet_rows_written = _kept(Counter, catalogue.PARQUET_ROWS_WRITTEN)
batches_checked = _kept(Counter, catalogue.BATCHES_CHECKED)

requests = _kept(Counter, catalogue.REQUESTS)
tokens = _kept(Counter, catalogue.TOKENS)
request_latency = _kept(Histogram, catalogue.REQUEST_LATENCY, buckets=ROW_SECONDS)
time_to_first_token = _kept(Histogram, catalogue.TIME_TO_FIRST_TOKEN, buckets=ROW_SECONDS)
shards_finished = _kept(Counter, catalogue.SHARDS_FINISHED)
engine_restarts = _kept(Counter, catalogue.ENGINE_RESTARTS)


def count_answer(generation: Generation) -> None:
    """Count a row that the engine ended, with an answer or an error."""
    choices = generation.choices if generation.error is None else []
    requests.labels(choices[0].finish_reason if choices else "error").inc()
    if usage := generation.usage:
        tokens.labels("prompt").inc(usage.prompt_tokens)
        tokens.labels("completion").inc(usage.completion_tokens)
        tokens.labels("cached").inc(usage.cached_tokens)
    request_latency.observe(generation.latency_ms / 1000)
    if generation.first_token_ms is not None:
        time_to_first_token.observe(generation.first_token_ms / 1000)

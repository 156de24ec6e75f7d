"""The names of all metrics, with their meaning. docs/metrics.md has the same table.

The values of a label are few: models, states, routes. Ids of jobs, rows and workers are never
labels, because each would be a time series for ever; the logs have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Prometheus's type of a metric."""

    COUNTER = "counter"  #: It only grows, and begins at 0 when its process starts.
    GAUGE = "gauge"  #: The present value.
    HISTOGRAM = "histogram"  #: Numbers of values below bounds, with their count and sum.
    SUMMARY = "summary"  #: Count and sum of values.


class Process(StrEnum):
    """The kind of process that has a metric."""

    SERVER = "server"  #: The HTTP service.
    COORDINATOR = "coordinator"  #: The process that starts and ends jobs.
    WORKER = "worker"  #: A process that computes rows.


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The definition of one metric."""

    name: str
    kind: Kind
    processes: tuple[Process, ...]
    help: str
    labels: tuple[str, ...] = ()


def _of(process: Process, kind: Kind, name: str, text: str, *labels: str) -> Metric:
    return Metric(
        name=f"batchgen_{name}", kind=kind, processes=(process,), help=text, labels=labels
    )


_SERVER, _COORDINATOR, _WORKER = Process.SERVER, Process.COORDINATOR, Process.WORKER
_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

INFO = Metric(
    name="batchgen_info",
    kind=_GAUGE,
    processes=tuple(Process),
    help="1; the labels say what this process is, and which model a worker computes",
    labels=("process", "version", "model"),
)
PARQUET_ROWS_WRITTEN = Metric(
    name="batchgen_parquet_rows_written_total",
    kind=_COUNTER,
    processes=(_COORDINATOR, _WORKER),
    help="rows of files that count: parts of a worker, datasets of a coordinator",
    labels=("file",),
)

HTTP_REQUESTS = _of(
    *(_SERVER, _COUNTER, "http_requests_total"),
    "answered HTTP requests, by the template of the route",
    *("method", "route", "status"),
)
HTTP_DURATION = _of(
    *(_SERVER, _HISTOGRAM, "http_request_duration_seconds"),
    "seconds from a request's headers to the end of its answer",
    *("method", "route"),
)
HTTP_IN_PROGRESS = _of(
    _SERVER, _GAUGE, "http_requests_in_progress", "HTTP requests that are being answered"
)

DATABASE_UP = _of(
    _COORDINATOR,
    _GAUGE,
    "database_up",
    "1 if the database answered the last query for these figures",
)
JOBS = _of(_COORDINATOR, _GAUGE, "jobs", "jobs that have not ended, by state", "state")
QUEUE_DEPTH = _of(
    _COORDINATOR,
    _GAUGE,
    "queue_depth",
    "shards that no worker has claimed, of jobs that may start",
    "queue",
)
QUEUE_OLDEST_AGE = _of(
    _COORDINATOR,
    _GAUGE,
    "queue_oldest_age_seconds",
    "seconds since the oldest job with such a shard was submitted",
    "queue",
)
WINDOW_OPEN = _of(
    _COORDINATOR,
    _GAUGE,
    "window_open",
    "1 if a job with such a shard may run now, 0 if the windows of all are closed",
    "queue",
)
WORKERS = _of(_COORDINATOR, _GAUGE, "workers", "workers with a recent heartbeat", "queue")
WORKER_SLOTS = _of(
    _COORDINATOR, _GAUGE, "worker_slots", "shards that these workers can hold", "queue"
)
HEARTBEAT_AGE = _of(
    _COORDINATOR,
    _GAUGE,
    "worker_heartbeat_age_seconds",
    "seconds since the last heartbeat of any worker of a queue",
    "queue",
)
TICKS = _of(
    _COORDINATOR, _COUNTER, "coordinator_ticks_total", "rounds that a coordinator completed"
)
JOBS_ENDED = _of(
    _COORDINATOR, _COUNTER, "jobs_ended_total", "jobs that a coordinator ended, by state", "state"
)
SHARDS_PUBLISHED = _of(
    _COORDINATOR, _COUNTER, "shards_published_total", "messages published to the broker", "queue"
)
LEASES_REAPED = _of(
    _COORDINATOR, _COUNTER, "leases_reaped_total", "shards taken back because their lease ran out"
)
WEBHOOK_ATTEMPTS = _of(
    *(_COORDINATOR, _COUNTER, "webhook_attempts_total"),
    "attempts to send an event, by what came of them",
    "outcome",
)

BATCHES_CHECKED = _of(
    _COORDINATOR,
    _COUNTER,
    "batches_checked_total",
    "batches whose lines were checked: `accepted` or `refused`",
    "outcome",
)

REQUESTS = _of(
    *(_WORKER, _COUNTER, "requests_total"),
    "rows that the engine ended: the finish reason of the first choice, or `error`",
    "outcome",
)
TOKENS = _of(
    *(_WORKER, _COUNTER, "tokens_total"),
    "tokens of these rows: `prompt`, `completion`, and of the prompt those `cached`",
    "kind",
)
REQUEST_LATENCY = _of(
    *(_WORKER, _HISTOGRAM, "request_latency_seconds"),
    "seconds from the engine's receipt of a row to its end",
)
TIME_TO_FIRST_TOKEN = _of(
    *(_WORKER, _HISTOGRAM, "time_to_first_token_seconds"),
    "seconds from the engine's receipt of a row to its first token",
)
SHARDS_IN_FLIGHT = _of(_WORKER, _GAUGE, "shards_in_flight", "shards that the worker holds")
SHARDS_FINISHED = _of(
    *(_WORKER, _COUNTER, "shards_finished_total"),
    "shards that left the worker, by the reason; `complete` ones are committed",
    "ending",
)
ENGINE_RESTARTS = _of(
    _WORKER, _COUNTER, "engine_restarts_total", "new engine processes after the death of one"
)
REQUESTS_RUNNING = _of(_WORKER, _GAUGE, "num_requests_running", "rows that the engine is answering")
REQUESTS_WAITING = _of(
    _WORKER, _GAUGE, "num_requests_waiting", "rows in the engine that wait for a place"
)
REQUESTS_SWAPPED = _of(
    _WORKER, _GAUGE, "num_requests_swapped", "rows of those whose blocks are in host memory"
)
SEQUENCES_RUNNING = _of(
    _WORKER, _GAUGE, "num_sequences_running", "sequences in the KV pool; a row may have several"
)
BATCH_SIZE = _of(
    *(_WORKER, Kind.SUMMARY, "batch_size"),
    "tokens computed in a step; the count is the number of steps",
)
PROMPT_TOKENS = _of(
    *(_WORKER, _COUNTER, "prompt_tokens_total"),
    "prompt tokens computed, again after a preemption",
)
GENERATION_TOKENS = _of(
    _WORKER, _COUNTER, "generation_tokens_total", "tokens drawn, of rows that have not ended too"
)
KV_PAGES_IN_USE = _of(_WORKER, _GAUGE, "kv_pages_in_use", "blocks of the KV pool in use")
KV_PAGES_CAPACITY = _of(_WORKER, _GAUGE, "kv_pages_capacity", "blocks of the KV pool")
KV_CACHE_USAGE = _of(_WORKER, _GAUGE, "kv_cache_usage", "the former over the latter, 0 to 1")
PREFIX_CACHE_QUERIES = _of(
    *(_WORKER, _COUNTER, "prefix_cache_queries_total"),
    "prompt tokens looked up in the prefix cache",
)
PREFIX_CACHE_HITS = _of(
    _WORKER, _COUNTER, "prefix_cache_hits_total", "prompt tokens found there, and not computed"
)
PREEMPTIONS = _of(
    _WORKER, _COUNTER, "preemptions_total", "times that a row gave up its blocks of the KV pool"
)
ENGINE_BUSY = _of(
    _WORKER, _COUNTER, "engine_busy_seconds_total", "seconds inside steps of the engine"
)
SCHEDULER_BUSY = _of(
    _WORKER, _COUNTER, "scheduler_busy_seconds_total", "seconds of them in the scheduler"
)
ENDPOINT_CONCURRENCY = _of(
    *(_WORKER, _GAUGE, "endpoint_concurrency"),
    "requests that an endpoint gets at once at most; 0 for an engine of our own",
)
ENDPOINT_RETRIES = _of(
    _WORKER, _COUNTER, "endpoint_retries_total", "requests that were sent to an endpoint again"
)
ENDPOINT_WAITING = _of(
    _WORKER, _GAUGE, "endpoint_waiting", "1 while an endpoint is away or refuses all requests"
)

#: Every metric, in the order of docs/metrics.md.
CATALOGUE: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)

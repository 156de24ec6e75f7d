"""The figures of a worker's engine, read from its last report when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from batchgen.core.engine_stats import EngineStats
from batchgen.telemetry import catalogue
from batchgen.telemetry.families import gauge, summary, total

if TYPE_CHECKING:
    from prometheus_client import Metric as Family


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """The state of a worker's engine at one moment."""

    #: None while no engine runs.
    stats: EngineStats | None
    #: Rows that are being answered.
    running: int
    #: Shards that the worker holds.
    shards: int


class EngineFigures(Collector):
    """Makes metrics of a worker's engine; a restarted engine begins its counters at 0 again."""

    def __init__(self, read: Callable[[], EngineReading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        """Yield the present figures; those of the engine are missing while none runs."""
        reading = self._read()
        yield gauge(catalogue.SHARDS_IN_FLIGHT, reading.shards)
        if reading.stats is not None:
            yield gauge(catalogue.REQUESTS_RUNNING, reading.running)
            yield from _of_batches(reading.stats)
            yield from _of_pool(reading.stats)
            yield from _of_endpoint(reading.stats)


def _of_batches(stats: EngineStats) -> Iterator[Family]:
    yield gauge(catalogue.REQUESTS_WAITING, stats.waiting)
    yield gauge(catalogue.REQUESTS_SWAPPED, stats.swapped)
    yield gauge(catalogue.SEQUENCES_RUNNING, stats.running)
    computed = stats.prompt_tokens + stats.generated_tokens
    yield summary(catalogue.BATCH_SIZE, count=stats.steps, total=computed)
    yield total(catalogue.PROMPT_TOKENS, stats.prompt_tokens)
    yield total(catalogue.GENERATION_TOKENS, stats.generated_tokens)
    yield total(catalogue.ENGINE_BUSY, stats.busy_seconds)
    yield total(catalogue.SCHEDULER_BUSY, stats.scheduler_seconds)


def _of_pool(stats: EngineStats) -> Iterator[Family]:
    yield gauge(catalogue.KV_PAGES_IN_USE, stats.kv_blocks_used)
    yield gauge(catalogue.KV_PAGES_CAPACITY, stats.kv_blocks)
    usage = stats.kv_blocks_used / stats.kv_blocks if stats.kv_blocks else 0.0
    yield gauge(catalogue.KV_CACHE_USAGE, usage)
    yield total(catalogue.PREFIX_CACHE_QUERIES, stats.prefix_queries)
    yield total(catalogue.PREFIX_CACHE_HITS, stats.prefix_hits)
    yield total(catalogue.PREEMPTIONS, stats.preemptions)


def _of_endpoint(stats: EngineStats) -> Iterator[Family]:
    yield gauge(catalogue.ENDPOINT_CONCURRENCY, stats.concurrency)
    yield total(catalogue.ENDPOINT_RETRIES, stats.retries)
    yield gauge(catalogue.ENDPOINT_WAITING, int(bool(stats.waiting_for)))

from __future__ import annotations

from batchgen.core.engine_stats import EngineStats
from batchgen.telemetry.engine_figures import EngineFigures, EngineReading
from tests.support.metrics import samples

STATS = EngineStats(
    steps=10,
    running=8,
    waiting=3,
    swapped=1,
    prompt_tokens=100,
    generated_tokens=60,
    prefix_queries=90,
    prefix_hits=30,
    kv_blocks=200,
    kv_blocks_used=50,
    preemptions=2,
    busy_seconds=4.5,
    scheduler_seconds=0.5,
)


def test_the_figures_are_the_engine_s() -> None:
    figures = EngineFigures(lambda: EngineReading(stats=STATS, running=6, shards=2))
    assert samples(figures) == {
        "batchgen_shards_in_flight": 2,
        "batchgen_num_requests_running": 6,
        "batchgen_num_requests_waiting": 3,
        "batchgen_num_requests_swapped": 1,
        "batchgen_num_sequences_running": 8,
        "batchgen_batch_size_count": 10,
        "batchgen_batch_size_sum": 160,
        "batchgen_prompt_tokens_total": 100,
        "batchgen_generation_tokens_total": 60,
        "batchgen_engine_busy_seconds_total": 4.5,
        "batchgen_scheduler_busy_seconds_total": 0.5,
        "batchgen_kv_pages_in_use": 50,
        "batchgen_kv_pages_capacity": 200,
        "batchgen_kv_cache_usage": 0.25,
        "batchgen_prefix_cache_queries_total": 90,
        "batchgen_prefix_cache_hits_total": 30,
        "batchgen_preemptions_total": 2,
        "batchgen_endpoint_concurrency": 0,
        "batchgen_endpoint_retries_total": 0,
        "batchgen_endpoint_waiting": 0,
    }


def test_an_endpoint_tells_its_limit_and_that_it_is_away() -> None:
    stats = EngineStats(concurrency=12, retries=5, waiting_for="no connection")
    found = samples(EngineFigures(lambda: EngineReading(stats=stats, running=0, shards=0)))
    assert found["batchgen_endpoint_concurrency"] == 12
    assert found["batchgen_endpoint_retries_total"] == 5
    assert found["batchgen_endpoint_waiting"] == 1


def test_while_no_engine_runs_nothing_is_said_of_it() -> None:
    figures = EngineFigures(lambda: EngineReading(stats=None, running=0, shards=1))
    assert samples(figures) == {"batchgen_shards_in_flight": 1}


def test_a_pool_that_is_not_there_yet_is_not_full() -> None:
    figures = EngineFigures(lambda: EngineReading(stats=EngineStats(), running=0, shards=0))
    assert samples(figures)["batchgen_kv_cache_usage"] == 0

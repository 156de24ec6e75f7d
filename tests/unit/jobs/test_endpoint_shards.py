from __future__ import annotations

from batchgen.jobs.creation.sharding import ENDPOINT_SHARD_ROWS, MAX_SHARDS, plan_shards


def test_shards_of_an_endpoint_are_smaller() -> None:
    assert plan_shards(1_000_000) == 1000
    assert plan_shards(1_000_000, most=ENDPOINT_SHARD_ROWS) == ENDPOINT_SHARD_ROWS
    assert plan_shards(5_000_000, most=ENDPOINT_SHARD_ROWS) == 5_000_000 // MAX_SHARDS

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.jobs.sharding import plan_shards, shard_ranges


@pytest.mark.parametrize(
    ("n_rows", "size"),
    [(1, 32), (32, 32), (2048, 32), (2049, 33), (6400, 100), (64_000, 1000), (5_000_000, 1000)],
)
def test_the_size_grows_with_the_job_within_its_bounds(n_rows: int, size: int) -> None:
    assert plan_shards(n_rows) == size


@given(st.integers(min_value=1, max_value=200_000))
def test_shards_tile_the_job(n_rows: int) -> None:
    position = 0
    for start, end in shard_ranges(n_rows):
        assert start == position < end
        position = end
    assert position == n_rows


@pytest.mark.parametrize("n_rows", [31, 32, 33, 999, 1000, 1001, 63_999, 64_001])
def test_no_shard_is_longer_than_planned(n_rows: int) -> None:
    lengths = [end - start for start, end in shard_ranges(n_rows)]
    assert set(lengths[:-1]) <= {plan_shards(n_rows)}
    assert 0 < lengths[-1] <= plan_shards(n_rows)

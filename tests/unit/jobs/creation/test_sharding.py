from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.jobs.creation.sharding import (
    MAX_SHARD_ROWS,
    MAX_SHARDS,
    MIN_SHARD_ROWS,
    TARGET_SECONDS,
    plan_shards,
    shard_ranges,
)

ROWS = st.integers(min_value=1, max_value=5_000_000)
SECONDS = st.floats(min_value=0, max_value=1e4)
WORKERS = st.integers(min_value=0, max_value=500)


def assert_tiles(n_rows: int, size: int) -> list[tuple[int, int]]:
    ranges = list(shard_ranges(n_rows, size))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == n_rows
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert all(0 < end - start <= size for start, end in ranges)
    assert {end - start for start, end in ranges[:-1]} <= {size}
    return ranges


@pytest.mark.parametrize(
    ("n_rows", "size"),
    [(1, 32), (32, 32), (2048, 32), (2049, 33), (6400, 100), (64_000, 1000), (5_000_000, 1000)],
)
def test_the_size_grows_with_the_job_within_its_bounds(n_rows: int, size: int) -> None:
    assert plan_shards(n_rows) == size


@pytest.mark.parametrize(
    ("row_seconds", "size"),
    [(0.0, 1000), (0.12, 1000), (0.2, 600), (1.0, 120), (3.0, 40), (60.0, 32)],
)
def test_a_shard_takes_two_minutes_within_its_bounds(row_seconds: float, size: int) -> None:
    assert plan_shards(300_000, row_seconds=row_seconds) == size


def test_many_workers_share_a_job_that_few_would_cut_more_coarsely() -> None:
    assert plan_shards(64_000) == 1000
    assert plan_shards(64_000, workers=8) == 1000
    assert plan_shards(64_000, workers=40) == 200
    assert plan_shards(64_000, workers=400) == MIN_SHARD_ROWS


def test_slow_rows_do_not_make_more_shards_than_a_database_likes() -> None:
    assert plan_shards(5_000_000, row_seconds=60.0) == 500


@given(ROWS, SECONDS, WORKERS)
def test_every_plan_is_within_bounds(n_rows: int, row_seconds: float, workers: int) -> None:
    size = plan_shards(n_rows, row_seconds=row_seconds, workers=workers)
    assert MIN_SHARD_ROWS <= size <= MAX_SHARD_ROWS
    shards = -(-n_rows // size)
    assert shards <= MAX_SHARDS
    if size > max(MIN_SHARD_ROWS, -(-n_rows // MAX_SHARDS)):
        assert size * row_seconds <= TARGET_SECONDS


@given(st.integers(min_value=1, max_value=50_000), SECONDS, WORKERS)
def test_shards_tile_the_job(n_rows: int, row_seconds: float, workers: int) -> None:
    assert_tiles(n_rows, plan_shards(n_rows, row_seconds=row_seconds, workers=workers))


@pytest.mark.parametrize("size", [MIN_SHARD_ROWS, 500, MAX_SHARD_ROWS])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_one_row_more_or_less_than_a_shard(size: int, more: int) -> None:
    ranges = assert_tiles(size + more, size)
    assert len(ranges) == (2 if more == 1 else 1)


def test_one_row_is_one_shard() -> None:
    assert assert_tiles(1, plan_shards(1)) == [(0, 1)]


@pytest.mark.parametrize("row_seconds", [0.0, 0.3, 60.0])
def test_five_million_rows_are_tiled(row_seconds: float) -> None:
    size = plan_shards(5_000_000, row_seconds=row_seconds)
    assert len(assert_tiles(5_000_000, size)) == 5_000_000 // size <= MAX_SHARDS

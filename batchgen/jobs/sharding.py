"""How a job is cut into shards."""

from __future__ import annotations

from collections.abc import Iterator

#: Few enough that a lost shard costs little, and no more rows than a worker keeps at hand.
MAX_SHARD_ROWS = 1000
#: Enough to fill a batch.
MIN_SHARD_ROWS = 32
#: A small job is cut into about this many, so that several workers share it.
SHARDS_WANTED = 64


def plan_shards(n_rows: int) -> int:
    """Return how many rows a shard of a job of `n_rows` rows has."""
    return min(MAX_SHARD_ROWS, max(MIN_SHARD_ROWS, -(-n_rows // SHARDS_WANTED)))


def shard_ranges(n_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the shards of a job as [start, end), tiling [0, n_rows) in order."""
    size = plan_shards(n_rows)
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)

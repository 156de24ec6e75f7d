"""How a job is cut into shards: by the time that one takes, and so that workers share the job."""

from __future__ import annotations

from collections.abc import Iterator

TARGET_SECONDS = 120.0  # a lost shard costs little; its claim, part and commit next to nothing
#: No more rows than a worker keeps at hand.
MAX_SHARD_ROWS = 1000
#: Enough to fill a batch.
MIN_SHARD_ROWS = 32
#: A small job is cut into about this many, so that several workers share it …
SHARDS_WANTED = 64
#: … and each of many workers has some, so that all end together.
SHARDS_PER_WORKER = 8
#: What a database with one job of them still answers at once; slow rows make longer shards then.
MAX_SHARDS = 10_000


def plan_shards(n_rows: int, *, row_seconds: float = 0.0, workers: int = 0) -> int:
    """Return how many rows a shard of a job of `n_rows` rows has.

    `row_seconds` is what a worker takes for a row among others, 0 where nobody knows; `workers` are
    those that may share the job.
    """
    size = MAX_SHARD_ROWS
    if row_seconds * size > TARGET_SECONDS:
        size = int(TARGET_SECONDS / row_seconds)
    size = min(size, _ceil(n_rows, max(SHARDS_WANTED, SHARDS_PER_WORKER * workers)))
    size = max(size, MIN_SHARD_ROWS, _ceil(n_rows, MAX_SHARDS))
    return min(size, MAX_SHARD_ROWS)


def shard_ranges(n_rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the shards of a job as [start, end), tiling [0, n_rows) in order."""
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)


def _ceil(count: int, pieces: int) -> int:
    return -(-count // pieces)

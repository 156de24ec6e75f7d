"""Choose the size of a job's shards by the time of a shard and the number of workers."""

from __future__ import annotations

from collections.abc import Iterator

from batchgen.models.record import ModelRecord

TARGET_SECONDS = 120.0  # short enough to lose, long enough that claim, part and commit cost little
#: The most rows, because a worker holds them in memory.
MAX_SHARD_ROWS = 1000
#: An endpoint has no pool that a shard must fill, so fewer rows are lost with a worker, and the
#: last shards of a job are shared among more workers.
ENDPOINT_SHARD_ROWS = 100
#: Enough rows to fill a batch.
MIN_SHARD_ROWS = 32
#: A small job has about this many shards, so that several workers can share it …
SHARDS_WANTED = 64
#: … and each worker gets several, so that all workers end at about the same time.
SHARDS_PER_WORKER = 8
#: A database stays fast with one job of this many shards; beyond it, shards take longer instead.
MAX_SHARDS = 10_000


def plan_shards(
    n_rows: int, *, row_seconds: float = 0.0, workers: int = 0, most: int | None = None
) -> int:
    """Return the number of rows in a shard, for a job of `n_rows` rows.

    `row_seconds` is the time of one worker for a row in a full batch, 0 if unknown. `workers` is
    the number of workers that may share the job. `most` is a lower limit than MAX_SHARD_ROWS; only
    a job with very many rows exceeds it.
    """
    size = most or MAX_SHARD_ROWS
    if row_seconds * size > TARGET_SECONDS:
        size = int(TARGET_SECONDS / row_seconds)
    size = min(size, _ceil(n_rows, max(SHARDS_WANTED, SHARDS_PER_WORKER * workers)))
    size = max(size, MIN_SHARD_ROWS, _ceil(n_rows, MAX_SHARDS))
    return min(size, MAX_SHARD_ROWS)


def shard_limit(model: ModelRecord) -> int | None:
    """Return the most rows that a shard of this model's jobs may have, None for the usual limit."""
    return ENDPOINT_SHARD_ROWS if model.endpoint else None


def shard_ranges(n_rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the shards of a job as [start, end), in order; they tile [0, n_rows)."""
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)


def _ceil(count: int, pieces: int) -> int:
    return -(-count // pieces)

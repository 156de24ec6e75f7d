"""Fault 20: a queue that anybody could have written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.cluster import Cluster
from tests.support.homes import MODEL
from tests.support.messages import bombs, foreign_ids, garbage, pickles

QUEUE = f"batchgen:bg.{MODEL}"
MEMORY = 400 << 10  # KiB that a worker may have had; it has 165 MiB without a job

KINDS: dict[str, Callable[[Path], list[bytes]]] = {
    "garbage": lambda _: garbage(),
    "pickles": pickles,
    "foreign shard ids": lambda _: foreign_ids(),
    "a message that unpacks to 512 MiB": lambda _: bombs(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fault(20, "garbage, pickles, foreign ids, bombs in the queue")
def test_20_nothing_in_the_queue_does_harm(
    cluster: Cluster, broker_url: str, tmp_path: Path, kind: str
) -> None:
    canary = tmp_path / "canary"
    cluster.coordinator()
    worker = cluster.worker()
    cluster.drain(cluster.submit())  # it listens
    messages = KINDS[kind](canary)
    with redis.Redis.from_url(broker_url) as client:
        # One after another, as one alone would end a worker that minds.
        for message in messages:
            cluster.hurt()
            client.lpush(QUEUE, message)
    cluster.drain(cluster.submit())
    assert worker.is_alive
    assert not canary.exists()
    assert peak_memory(worker.pid) < MEMORY
    with redis.Redis.from_url(broker_url) as client:
        assert client.llen(QUEUE) == 0
        assert client.hlen("batchgen:unacked") == 0


def peak_memory(pid: int) -> int:
    """Return the most KiB that a process has had in memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

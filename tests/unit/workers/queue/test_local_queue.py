from __future__ import annotations

import threading

from batchgen.errors import DatabaseUnavailable
from batchgen_workers.queue.local_queue import LocalQueue
from batchgen_workers.shard.claim_gate import Draining

LIMIT = 10  # seconds until a test that waits for nothing fails


def test_shards_are_begun_in_order_one_at_a_time_whatever_goes_wrong() -> None:
    shards = LocalQueue()
    begun: list[int] = []
    last = threading.Event()

    def run(shard_id: int) -> None:
        begun.append(shard_id)
        if shard_id == 2:
            raise DatabaseUnavailable
        if shard_id == 4:
            last.set()

    assert shards.publish("tiny", [1, 2, 3]) == []
    assert shards.waiting("tiny") == 3
    with shards.consumed(run):
        shards.publish("tiny", [4])
        assert last.wait(LIMIT)
    assert begun == [1, 2, 3, 4]


def test_a_draining_worker_begins_no_more() -> None:
    shards = LocalQueue()
    begun: list[int] = []

    def run(shard_id: int) -> None:
        begun.append(shard_id)
        raise Draining

    shards.publish("tiny", [1, 2])
    with shards.consumed(run):
        pass
    assert begun == [1]

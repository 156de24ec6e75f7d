from __future__ import annotations

import queue
from collections import defaultdict

from batchgen_workers.shard.finisher_pool import FinisherPool
from batchgen_workers.shard.shard import Shard
from tests.support.jobs import lease_without_store

LIMIT = 10  # seconds until a test that waits for nothing fails


class Attendant:
    """Attends to shards when the test lets it, and answers what the test wants."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[Shard] = queue.SimpleQueue()
        self.answers: dict[Shard, queue.SimpleQueue[bool]] = defaultdict(queue.SimpleQueue)
        self.finished: queue.SimpleQueue[Shard] = queue.SimpleQueue()

    def __call__(self, shard: Shard) -> bool:
        self.begun.put(shard)
        return self.answers[shard].get(timeout=LIMIT)


def new_shard() -> Shard:
    return Shard(lease_without_store(pos_start=0, pos_end=3))


def pool_of(attendant: Attendant, *, threads: int = 2) -> FinisherPool:
    pool = FinisherPool(attendant, on_finished=attendant.finished.put, threads=threads)
    pool.start()
    return pool


def test_a_shard_is_attended_to_until_it_is_finished_and_then_never() -> None:
    attendant, shard = Attendant(), new_shard()
    pool = pool_of(attendant)
    pool.take(shard)
    for answer in (False, False, True):
        shard.on_due()  # before or after the pool has noted the last answer
        assert attendant.begun.get(timeout=LIMIT) is shard
        attendant.answers[shard].put(answer)
    assert attendant.finished.get(timeout=LIMIT) is shard
    shard.on_due()
    pool.put(new_shard())  # never taken
    pool.stop()
    assert attendant.begun.empty()


def test_one_thread_at_a_time_attends_to_a_shard() -> None:
    attendant, shard, other = Attendant(), new_shard(), new_shard()
    pool = pool_of(attendant)
    pool.take(shard)
    pool.take(other)
    shard.on_due()
    assert attendant.begun.get(timeout=LIMIT) is shard
    shard.on_due()  # twice meanwhile: attended to once more
    shard.on_due()
    other.on_due()  # the second thread is free for it
    assert attendant.begun.get(timeout=LIMIT) is other
    attendant.answers[shard].put(False)
    attendant.answers[other].put(False)
    assert attendant.begun.get(timeout=LIMIT) is shard
    attendant.answers[shard].put(True)
    assert attendant.finished.get(timeout=LIMIT) is shard
    pool.stop()
    assert attendant.begun.empty()


def test_a_shard_that_hangs_holds_up_no_other() -> None:
    attendant, hanging = Attendant(), new_shard()
    pool = pool_of(attendant, threads=2)
    pool.take(hanging)
    hanging.on_due()
    assert attendant.begun.get(timeout=LIMIT) is hanging
    for _ in range(3):
        shard = new_shard()
        pool.take(shard)
        shard.on_due()
        assert attendant.begun.get(timeout=LIMIT) is shard
        attendant.answers[shard].put(True)
        assert attendant.finished.get(timeout=LIMIT) is shard
    attendant.answers[hanging].put(True)
    assert attendant.finished.get(timeout=LIMIT) is hanging
    pool.stop()

"""Faults 6 and 14 to 19: a broker that loses, forgets, repeats and refuses."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
import redis

from batchgen_workers import testing
from batchgen_workers.queue.broker_server import BrokerServer
from tests.support.cluster import FAST_SETTINGS, RECOVERY, ROWS, Cluster, Toll, running_cluster
from tests.support.homes import MODEL
from tests.support.strange import publishing_too_often, with_short_visibility
from tests.support.workers import questions, wait_until

QUEUE = f"batchgen:bg.{MODEL}"
BACK = 15.0  # seconds until work goes on after the broker is there again: promise R4


class Broker:
    """A Valkey of the test's own, to be killed."""

    def __init__(self, home: Path) -> None:
        self._server = BrokerServer(home)
        self.url = self._server.url
        self._process: Popen[bytes] = self._server.start()

    def kill(self) -> None:
        """Kill it with all that it holds."""
        for pid in children_of(self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start it again, empty."""
        self._process = self._server.start()

    def close(self) -> None:
        """End it for good."""
        self._process.kill()
        self._process.wait()
        self._server.remove()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.close()


@pytest.fixture
def own_cluster(
    fault_database_url: str, broker: Broker, tmp_path: Path, toll: Toll
) -> Iterator[Cluster]:
    """An installation whose broker the test may kill."""
    with running_cluster(
        tmp_path, database_url=fault_database_url, broker_url=broker.url
    ) as cluster:
        cluster.toll = toll
        yield cluster


@pytest.mark.fault(6, "message popped, then the worker killed")
def test_06_a_message_that_dies_with_its_worker(cluster: Cluster, broker_url: str) -> None:
    cluster.coordinator()
    victim = cluster.worker()
    wait_until(lambda: victim.said("listening"))
    with redis.Redis.from_url(broker_url) as client:
        wait_until(lambda: b"brpop" in {entry["cmd"].encode() for entry in client.client_list()})
        cluster.hold(victim)
        job = cluster.submit(20)  # one shard: one message
        wait_until(lambda: published(cluster) and client.llen(QUEUE) == 0)
    victim.kill()
    cluster.hurt()
    cluster.worker()
    cluster.drain(job)
    cluster.toll.assert_within(FAST_SETTINGS["redispatch_after"] + RECOVERY)


@pytest.mark.fault(14, "Valkey killed and started empty, workers idle")
def test_14_an_idle_broker_dies(own_cluster: Cluster, broker: Broker) -> None:
    worker = own_cluster.worker()
    own_cluster.coordinator()
    wait_until(lambda: worker.said("listening"))
    broker.kill()
    wait_until(lambda: worker.said("Connection to broker lost") or worker.said("Cannot connect"))
    broker.start()
    own_cluster.hurt()
    own_cluster.drain(own_cluster.submit())
    own_cluster.toll.assert_within(BACK)


@pytest.mark.fault(14, "Valkey killed and started empty, workers busy")
def test_14_a_busy_broker_dies(own_cluster: Cluster, broker: Broker) -> None:
    own_cluster.coordinator()
    own_cluster.brake.after(10)
    own_cluster.worker()
    job = own_cluster.submit()
    own_cluster.await_done(job, 10)
    broker.kill()
    own_cluster.brake.after(10)
    own_cluster.await_done(job, 20)  # what is in the engine goes on
    broker.start()
    own_cluster.hurt()
    own_cluster.brake.release()
    own_cluster.drain(job)


@pytest.mark.fault(15, "FLUSHALL; the binding table deleted")
@pytest.mark.parametrize("everything", [True, False], ids=["FLUSHALL", "bindings"])
def test_15_a_broker_forgets(cluster: Cluster, broker_url: str, *, everything: bool) -> None:
    cluster.coordinator()
    cluster.brake.after(10)
    cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    with redis.Redis.from_url(broker_url) as client:
        if everything:
            client.flushall()
        else:
            client.delete(*client.keys("*_kombu.binding.*"), "nothing")
    cluster.hurt()
    cluster.brake.release()
    cluster.drain(job)
    cluster.drain(cluster.submit())


@pytest.mark.fault(17, "maxmemory reached, noeviction")
def test_17_a_full_broker_costs_time_only(own_cluster: Cluster, broker: Broker) -> None:
    coordinator = own_cluster.coordinator()
    worker = own_cluster.worker()
    wait_until(lambda: worker.said("listening"))
    with full(broker):
        own_cluster.hurt()
        job = own_cluster.submit()
        wait_until(lambda: coordinator.said("broker unavailable"), within=30.0)
        assert own_cluster.done(job) == 0
    own_cluster.drain(job)
    assert worker.is_alive


@pytest.mark.fault(18, "visibility timeout shorter than a shard")
def test_18_a_message_redelivered_too_early_is_refused(cluster: Cluster) -> None:
    cluster.coordinator()
    for _ in range(2):
        cluster.start(
            "worker",
            with_short_visibility,
            ["worker", MODEL, testing.SLOW],
            engine={"max_num_seqs": 2},
        )
    job = cluster.submit(questions(150, max_tokens=4))
    cluster.hurt()
    cluster.drain(job)


@pytest.mark.fault(19, "every message three times and more, shuffled")
def test_19_messages_come_again_and_again(cluster: Cluster) -> None:
    cluster.start("coordinator", publishing_too_often, ["coordinator"])
    cluster.worker()
    cluster.worker()
    jobs = [cluster.submit(questions(ROWS, max_tokens=tokens)) for tokens in (1, 2, 3)]
    cluster.hurt()
    for job in jobs:
        cluster.drain(job)
        assert {shard.epoch for shard in cluster.store.jobs.shards(job.id)} == {1}


@contextmanager
def full(broker: Broker) -> Iterator[None]:
    """Let the broker refuse every write for the block."""
    with redis.Redis(unix_socket_path=broker.url.removeprefix("redis+socket://")) as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


def published(cluster: Cluster) -> bool:
    """Return whether some shard was published."""
    return any(
        shard.enqueued_at is not None
        for job in cluster.store.jobs.list()
        for shard in cluster.store.jobs.shards(job.id)
    )


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]

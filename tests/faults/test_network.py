"""Faults 35 to 38: networks that fail half-way, and clocks that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from batchgen.core.states import ShardState
from batchgen_workers import testing
from tests.support.cluster import RECOVERY, TTL, Cluster, Toll, running_cluster
from tests.support.homes import MODEL
from tests.support.jobs import database_now, move_clock, states_of
from tests.support.proxy import Proxy
from tests.support.strange import (
    two_hours_ahead,
    two_hours_behind,
    with_jumping_clock,
    without_names_until,
)
from tests.support.workers import wait_until

HOUR = 3600.0  # seconds


@contextmanager
def behind_proxy(
    database_url: str, broker_url: str, folder: Path, toll: Toll
) -> Iterator[tuple[Cluster, Proxy]]:
    """Yield a cluster whose broker is reached through a proxy, and the proxy."""
    url = make_url(broker_url)
    assert url.host is not None
    assert url.port is not None
    with Proxy((url.host, url.port)) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        with running_cluster(folder, database_url=database_url, broker_url=through) as cluster:
            cluster.toll = toll
            yield cluster, proxy


def slow(proxy: Proxy) -> None:
    proxy.latency = 0.5


def trickling(proxy: Proxy) -> None:
    proxy.bytes_per_second = 1000


@pytest.mark.fault(35, "broker connections reset; slow; a kilobyte a second")
@pytest.mark.parametrize("toxic", [Proxy.reset, slow, trickling], ids=["reset", "slow", "trickle"])
def test_35_a_bad_network_to_the_broker(
    fault_database_url: str,
    broker_url: str,
    tmp_path: Path,
    toll: Toll,
    toxic: Callable[[Proxy], None],
) -> None:
    with behind_proxy(fault_database_url, broker_url, tmp_path, toll) as (cluster, proxy):
        cluster.coordinator()
        cluster.brake.after(10)
        cluster.worker()
        job = cluster.submit(100)
        cluster.await_done(job, 10)
        toxic(proxy)
        cluster.hurt()
        cluster.brake.release()
        cluster.drain(job)
        cluster.drain(cluster.submit(50))
        toll.assert_within(60.0)


@pytest.mark.long
@pytest.mark.fault(35, "broker connections half open")
def test_35_nobody_waits_for_ever_for_a_host_that_is_gone(
    fault_database_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    with behind_proxy(fault_database_url, broker_url, tmp_path, toll) as (cluster, proxy):
        cluster.coordinator()
        worker = cluster.worker()
        wait_until(lambda: worker.said("listening"))
        cluster.drain(cluster.submit(50))
        proxy.abandon()
        cluster.hurt()
        cluster.drain(cluster.submit(50), within=150.0)
        toll.assert_within(60.0)


@pytest.mark.fault(36, "worker clocks two hours wrong, and jumping")
@pytest.mark.parametrize("clock", [two_hours_ahead, two_hours_behind, with_jumping_clock])
def test_36_only_the_clock_of_the_database_counts(
    cluster: Cluster, clock: Callable[[list[str]], int]
) -> None:
    cluster.start("coordinator", clock, ["coordinator"])
    cluster.brake.after(10)
    cluster.start("worker", clock, ["worker", MODEL, testing.FAST])
    cluster.worker()
    cluster.hurt()
    job = cluster.submit()
    cluster.await_done(job, 10)
    began = database_now(cluster.store.database)
    wait_until(lambda: database_now(cluster.store.database) > began + 2 * TTL)
    cluster.brake.release()
    cluster.drain(job)
    assert {shard.lost for shard in cluster.store.jobs.shards(job.id)} == {0}


@pytest.mark.fault(37, "the database's clock jumps an hour: all leases end at once")
def test_37_leases_that_end_together_are_taken_again(cluster: Cluster) -> None:
    cluster.brake.after(10)
    cluster.coordinator()
    cluster.worker()
    cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    move_clock(cluster.store, HOUR)
    cluster.hurt()
    cluster.brake.release()
    cluster.drain(job)


@pytest.mark.fault(37, "the database's clock is set back an hour: leases of the dead, and rings")
def test_37_what_lies_ahead_of_a_clock_set_back_is_stale(cluster: Cluster) -> None:
    cluster.brake.after(10)
    coordinator = cluster.coordinator()
    worker = cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    coordinator.kill()
    worker.kill()  # its leases and its messages have no owner now
    assert ShardState.LEASED in states_of(cluster.store, job)
    move_clock(cluster.store, -HOUR)
    cluster.hurt()
    cluster.brake.release()
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)
    assert {one.lost for one in cluster.store.jobs.shards(job.id)} >= {1}
    cluster.toll.assert_within(RECOVERY)


@pytest.mark.fault(37, "the database's clock is set back an hour under live workers")
def test_37_a_clock_set_back_costs_live_workers_nothing(cluster: Cluster) -> None:
    cluster.brake.after(10)
    cluster.coordinator()
    cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    move_clock(cluster.store, -HOUR)
    cluster.hurt()
    cluster.brake.release()
    cluster.drain(job)
    assert {one.lost for one in cluster.store.jobs.shards(job.id)} == {0}
    cluster.toll.assert_within(RECOVERY)


@pytest.mark.fault(38, "name resolution fails")
def test_38_names_that_do_not_resolve_are_asked_again(
    fault_database_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    named = make_url(broker_url).set(host="broker.test").render_as_string(hide_password=False)
    resolving = tmp_path / "resolving"
    strange = without_names_until(str(resolving))
    with running_cluster(
        tmp_path, database_url=fault_database_url, broker_url=named, insecure=True
    ) as cluster:
        cluster.toll = toll
        worker = cluster.start("worker", strange, ["worker", MODEL, testing.FAST])
        coordinator = cluster.start("coordinator", strange, ["coordinator"])
        job = cluster.submit()
        wait_until(lambda: worker.said("Cannot connect"))
        wait_until(lambda: coordinator.said("broker unavailable"))
        cluster.hurt()
        resolving.touch()
        cluster.drain(job)

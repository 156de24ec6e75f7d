"""Faults 1 to 8 and 12: processes that die, stop, are told to end, or are there twice."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen_workers import testing
from tests.support.cluster import RECOVERY, ROWS, Cluster, Toll, running_cluster
from tests.support.homes import MODEL
from tests.support.nursery import Member, run_job
from tests.support.workers import is_alive, questions, wait_until

# In the order a shard passes them.
FAILPOINTS = (
    "shard.claimed",
    "row.answered@20",
    "shard.fed",
    "storage.opening",
    "storage.written",
    "storage.synced",
    "storage.renamed",
    "part.committing",
    "part.committed",
)


def at(failpoint: str, action: str) -> str:
    """Return the specification of a failpoint such as row.answered@20."""
    name, at, when = failpoint.partition("@")
    return f"{name}={action}{at}{when}"


@pytest.mark.fault(1, "kill -9 of a worker at each step of a shard")
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_01_a_worker_dies_at_any_step(cluster: Cluster, failpoint: str) -> None:
    cluster.coordinator()
    job = cluster.submit()
    victim = cluster.worker(failpoint=at(failpoint, "kill"))
    assert victim.wait() == -signal.SIGKILL
    cluster.hurt()
    cluster.worker()
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY)


@pytest.mark.fault(4, "SIGSTOP beyond the lease, then SIGCONT")
def test_04_a_worker_that_slept_through_its_lease_is_fenced(cluster: Cluster) -> None:
    cluster.coordinator()
    job = cluster.submit()
    cluster.brake.after(1)
    sleeper = cluster.worker()
    cluster.await_done(job, 1)
    cluster.hold(sleeper)
    cluster.hurt()
    cluster.brake.release()
    cluster.worker()
    cluster.drain(job)
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: sleeper.said("shard fenced"))
    cluster.check()


@pytest.mark.fault(5, "SIGSTOP between rename and COMMIT")
@pytest.mark.parametrize("failpoint", ["storage.renamed", "part.committing"])
def test_05_a_part_without_a_commit_is_nobodys(cluster: Cluster, failpoint: str) -> None:
    cluster.coordinator()
    job = cluster.submit()
    sleeper = cluster.worker(failpoint=at(failpoint, "stop:1"))
    cluster.await_held(sleeper)
    cluster.hurt()
    cluster.worker()
    cluster.drain(job)
    wait_until(lambda: sleeper.wakes_up_until("shard fenced"))
    sleeper.kill()  # it may be stopped anew, this time with SQLite's lock
    cluster.check()


@pytest.mark.fault(12, "dispatcher and reaper killed, and two of them at once")
@pytest.mark.parametrize(
    "failpoint", ["dispatch.taken", "dispatch.published", "final.claimed", "final.completing"]
)
def test_12_a_coordinator_dies_at_any_step(cluster: Cluster, failpoint: str) -> None:
    cluster.worker()
    job = cluster.submit()
    victim = cluster.coordinator(failpoint=at(failpoint, "kill"))
    assert victim.wait() == -signal.SIGKILL
    cluster.hurt()
    cluster.coordinator()
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY)


@pytest.mark.fault(7, "SIGTERM in the middle of a shard, one second of grace")
def test_07_what_was_finished_at_sigterm_is_never_computed_again(cluster: Cluster) -> None:
    cluster.coordinator()
    job = cluster.submit()
    cluster.brake.after(20)
    first = cluster.worker()
    cluster.await_done(job, 20)
    first.send(signal.SIGTERM)
    cluster.hurt()
    assert first.wait() == 0
    kept = cluster.done(job)
    assert kept == 20
    cluster.brake.release()
    cluster.worker()
    rows = cluster.drain(job)
    assert sum(row.attempt == 1 for row in rows) >= kept
    assert {shard.lost for shard in cluster.store.jobs.shards(job.id)} == {0}


@pytest.mark.fault(8, "SIGQUIT, SIGHUP, SIGTERM twice")
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGQUIT], [signal.SIGHUP], [signal.SIGTERM, signal.SIGTERM]],
    ids=["QUIT", "HUP", "TERM-TERM"],
)
def test_08_no_signal_fails_a_shard(cluster: Cluster, signals: list[signal.Signals]) -> None:
    cluster.coordinator()
    job = cluster.submit()
    cluster.brake.after(20)
    first = cluster.worker()
    cluster.await_done(job, 20)
    for number in signals:
        first.send(number)
    cluster.hurt()
    cluster.brake.release()
    cluster.worker()
    cluster.drain(job)
    cluster.toll.assert_within(RECOVERY + 10.0)  # the first may go on with its shards


def coordinating(cluster: Cluster) -> Member:
    member = cluster.coordinator()
    wait_until(lambda: member.said("coordinating"))
    return member


def working(cluster: Cluster) -> Member:
    member = cluster.worker()
    wait_until(lambda: member.said("listening"))
    return member


def running(cluster: Cluster) -> Member:
    job = cluster.submit(questions(ROWS, max_tokens=1_000_000))
    member = cluster.start("run", run_job, [job.public_id, testing.SLOW])
    wait_until(lambda: member.said("shard claimed"))
    cluster.store.jobs.cancel(job.id)  # the next process is not to find it
    return member


def supervising(cluster: Cluster) -> Member:
    member = cluster.stack()
    wait_until(lambda: member.said(f"worker {MODEL} started"))
    return member


@pytest.mark.fault(8, "TERM and HUP, INT and TERM at the same moment")
@pytest.mark.parametrize("start", [coordinating, working, running, supervising])
def test_08_of_two_signals_at_once_none_is_lost(
    sqlite_url: str,
    broker_url: str,
    tmp_path: Path,
    toll: Toll,
    start: Callable[[Cluster], Member],
) -> None:
    pairs = [(signal.SIGTERM, signal.SIGHUP), (signal.SIGINT, signal.SIGTERM)]
    with running_cluster(tmp_path, database_url=sqlite_url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        for pair in pairs * (1 if start is supervising else 4):
            member = start(cluster)
            for number in pair:
                member.send(number)
            cluster.hurt()
            # the later one may come when nothing is left to save, and end it there and then
            assert member.wait() in (0, 1, -pair[0], -pair[1])
            assert not any(is_alive(child) for child in member.children())


@pytest.mark.fault(12, "two coordinators at once")
def test_12_two_coordinators_do_the_work_of_one(
    postgres_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    with running_cluster(tmp_path, database_url=postgres_url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        members = [cluster.coordinator(), cluster.coordinator(), cluster.coordinator()]
        cluster.brake.after(20)
        cluster.worker()
        cluster.worker()
        jobs = [cluster.submit() for _ in range(4)]
        wait_until(lambda: any(cluster.done(job) for job in jobs))
        members[0].kill()
        cluster.hurt()
        cluster.brake.release()
        for job in jobs:
            cluster.drain(job)


@pytest.mark.fault(4, "SIGSTOP beyond the lease, SIGCONT while another is at work")
def test_04_who_wakes_beside_its_successor_is_fenced(cluster: Cluster) -> None:
    cluster.coordinator()
    job = cluster.submit()
    sleeper = cluster.worker(failpoint="part.committing=stop:1")
    cluster.await_held(sleeper)
    cluster.hurt()
    successor = cluster.worker(failpoint="part.committing=pause:2")
    wait_until(lambda: 2 in {shard.epoch for shard in cluster.store.jobs.shards(job.id)})
    wait_until(lambda: sleeper.wakes_up_until("shard fenced"))
    sleeper.kill()  # it may be stopped anew, this time with SQLite's lock
    cluster.drain(job)
    assert successor.is_alive

"""Faults 21 and 31 at the start: what waits for a database counts as no crash."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from batchgen.database.identity import open_storage
from tests.support.cluster import Cluster, Toll, running_cluster
from tests.support.disks import mounted_disk
from tests.support.homes import MODEL
from tests.support.nursery import Member
from tests.support.servers import PostgresProcess
from tests.support.workers import wait_until

ROWS = 40


@pytest.mark.fault(21, "PostgreSQL away when coordinator and worker, or all of `up`, start")
@pytest.mark.parametrize("together", [False, True], ids=["apart", "up"])
def test_21_a_database_that_comes_later_is_waited_for(
    own_cluster: Cluster, own_postgres: PostgresProcess, together: bool
) -> None:
    job = own_cluster.submit(ROWS)
    own_postgres.stop_at_once()
    members = (
        [own_cluster.stack()] if together else [own_cluster.coordinator(), own_cluster.worker()]
    )
    waits = "up waits: " if together else "waiting for the database"
    wait_until(lambda: all(member.said(waits) for member in members))
    own_postgres.start()
    own_cluster.hurt()
    own_cluster.drain(job)
    assert [member.count(waits) for member in members] == [1] * len(members)
    for member in members:
        member.send(signal.SIGTERM)
        assert member.wait() == 0


@pytest.mark.long
@pytest.mark.fault(21, "told to end while PostgreSQL is away")
@pytest.mark.parametrize("name", ["coordinator", "worker", "stack"])
def test_21_a_process_that_waits_can_be_ended(
    own_cluster: Cluster, own_postgres: PostgresProcess, name: str
) -> None:
    own_postgres.stop_at_once()
    member: Member = getattr(own_cluster, name)()
    wait_until(lambda: member.said("waits: ") or member.said("waiting for the database"))
    member.send(signal.SIGTERM)
    own_cluster.hurt()
    assert member.wait() == 0


@pytest.mark.long
@pytest.mark.fault(31, "`up` starts, and starts its worker again, on a full disk of SQLite")
def test_31_a_full_disk_is_no_crash_loop(
    sqlite_template: Path, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    with mounted_disk(tmp_path / "disk") as disk:
        shutil.copyfile(sqlite_template, disk.folder / "batchgen.db")
        url = f"sqlite:///{disk.folder / 'batchgen.db'}"
        with running_cluster(tmp_path, database_url=url, broker_url=broker_url) as cluster:
            cluster.toll = toll
            job = cluster.submit()
            open_storage(cluster.store.database, cluster.home).establish()  # as a submit does
            disk.fill()
            stack = cluster.stack()
            for deaths in range(2):
                wait_until(lambda deaths=deaths: stack.count("worker not signed on") > deaths)  # type: ignore[misc]
                os.kill(stack.pid_of(f"worker {MODEL}"), signal.SIGKILL)
                cluster.hurt()
            wait_until(lambda: stack.count("worker not signed on") == 3)
            assert stack.is_alive
            disk.empty()
            cluster.hurt()
            cluster.drain(job)
            assert stack.count("ended (pid") == 2  # the two that were killed

"""Fault 64: `batchgen rm` is killed at each of its steps; another process finishes the removal."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from contextlib import closing

import pytest

from batchgen.service import Service
from batchgen.service.submission import Submission
from tests.support.cluster import Cluster
from tests.support.homes import MODEL, finish, prompts
from tests.support.nursery import run_command
from tests.support.workers import files_below, wait_until


def by_rm(cluster: Cluster, removed: str) -> None:
    """Give the same command again."""
    assert cluster.start("rm", run_command, ["rm", removed]).wait() == 0


def by_another_rm(cluster: Cluster, removed: str) -> None:
    """Remove another job."""
    assert cluster.start("rm", run_command, ["rm", finished_job(cluster, rows=3)]).wait() == 0


def by_fsck(cluster: Cluster, removed: str) -> None:
    """Look for garbage by hand."""
    assert cluster.start("fsck", run_command, ["fsck", "--collect"]).wait() == 0


def by_coordinator(cluster: Cluster, removed: str) -> None:
    """Let a coordinator look for garbage."""
    coordinator = cluster.coordinator(garbage_interval=0.2)
    wait_until(lambda: coordinator.said("garbage collected"))


#: Where it is killed, and who goes on.
STEPS: dict[str, Callable[[Cluster, str], None]] = {
    "rm.committing": by_rm,
    "rm.committed": by_coordinator,
    "rm.folder_deleted@1": by_another_rm,
    "rm.folder_deleted@2": by_rm,
    "rm.input_deleted@1": by_fsck,
    "rm.input_deleted@2": by_rm,
}


@pytest.mark.fault(64, "kill -9 of `rm` at each of its steps")
@pytest.mark.parametrize("step", STEPS)
def test_64_a_removal_killed_half_way_is_finished(cluster: Cluster, step: str) -> None:
    kept, removed = finished_job(cluster, rows=2), finished_job(cluster, rows=4)
    point, _, time = step.partition("@")
    killed = cluster.start(
        "rm", run_command, ["rm", removed], failpoint=f"{point}=kill@{time or 1}"
    )
    assert killed.wait() == -signal.SIGKILL
    cluster.hurt()
    cluster.check()
    listed = {job.public_id for job in cluster.store.jobs.list()}
    assert listed == ({kept, removed} if point == "rm.committing" else {kept})
    STEPS[step](cluster, removed)
    wait_until(lambda: not left_of(cluster, removed))
    assert [job.public_id for job in cluster.store.jobs.list()] == [kept]
    cluster.check()
    assert len(files_below(cluster.home / "inputs")) == 2
    assert_orphans_go(cluster)


def finished_job(cluster: Cluster, *, rows: int) -> str:
    """Submit a job of an input of its own, end it with a dataset, and return its id."""
    with closing(Service(cluster.settings)) as service:
        job = service.submit(io.BytesIO(prompts(rows)), Submission(model=MODEL))
        finish(service, job)
        return job.public_id


def left_of(cluster: Cluster, job: str) -> list[str]:
    return [name for name in files_below(cluster.home) if job in name]


def assert_orphans_go(cluster: Cluster) -> None:
    """Collect an input that no job was submitted on: nothing keeps the rest of the home."""
    orphan = cluster.home / "inputs" / ("a" * 64)
    orphan.touch()
    os.utime(orphan, times=(1.0, 1.0))
    with closing(Service(cluster.settings)) as service:
        assert [found.key for found in service.collector().collect()] == [f"inputs/{orphan.name}"]

"""Fault 63: processes of one database and one broker whose homes are not the same folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from batchgen.errors import StoreMismatch
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen.storage.store_id import ensure_store_id
from batchgen_workers import testing
from tests.support.cluster import Cluster
from tests.support.disks import with_short_pauses
from tests.support.homes import MODEL, pin_model
from tests.support.jobs import count_parts
from tests.support.nursery import run_process
from tests.support.workers import files_below, questions, wait_until

PROCESSES = {"coordinator": ["coordinator"], "worker": ["worker", MODEL, testing.FAST]}

#: What a user may do with a job's files, by the name of the job.
COMMANDS: dict[str, Callable[[Service, str], object]] = {
    "submit": lambda service, _: submit(service),
    "fsck": lambda service, _: service.fsck(),
    "fsck --adopt": lambda service, _: list(service.adopt()),
    "fsck --collect": lambda service, _: list(service.collector().collect()),
    "results": lambda service, job: service.results.dataset(job),
    "verify": lambda service, job: service.results.verify(job),
    "rm": lambda service, job: service.remove(job),
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A home with the same model, on another machine as it were."""
    home = tmp_path / "elsewhere"
    pin_model(home)
    return home


def submit(service: Service, rows: int = 40) -> JobRecord:
    """Submit questions as the command does."""
    lines = b"\n".join(orjson.dumps(row) for row in questions(rows))
    return service.submit(io.BytesIO(lines), Submission(model=MODEL))


def service_at(cluster: Cluster, home: Path) -> Service:
    """Return the library of a home on the cluster's database."""
    return Service(cluster.settings.model_copy(update={"home": home}))


@pytest.mark.fault(63, "a process with another home on the same database and broker")
@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("has_id", [False, True])
def test_63_a_process_with_another_home_does_not_start(
    cluster: Cluster, elsewhere: Path, name: str, has_id: bool
) -> None:
    if has_id:
        ensure_store_id(elsewhere)
    before = files_below(elsewhere)
    with closing(Service(cluster.settings)) as service:
        job = submit(service)
    stranger = cluster.start(name, run_process, PROCESSES[name], home=elsewhere)
    cluster.hurt()
    assert stranger.wait() == StoreMismatch.exit_code
    assert stranger.said("belongs to the store")
    assert stranger.said("BATCHGEN_HOME")
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)
    assert files_below(elsewhere) == before


@pytest.mark.fault(63, "a worker with another home, started before the first job")
def test_63_a_worker_that_cannot_see_the_store_judges_no_job(
    cluster: Cluster, elsewhere: Path
) -> None:
    stranger = cluster.start("worker", with_short_pauses, PROCESSES["worker"], home=elsewhere)
    wait_until(lambda: stranger.said("listening"))
    with closing(Service(cluster.settings)) as service:
        job = submit(service)
    coordinator = cluster.coordinator()
    cluster.hurt()
    wait_until(lambda: stranger.said("store not seen"))
    assert cluster.store.jobs.by_id(job.id).error is None
    assert count_parts(cluster.store, job) == 0
    cluster.worker()
    cluster.drain(job)
    assert stranger.is_alive
    assert coordinator.is_alive
    assert not (elsewhere / "parts").exists()


@pytest.mark.fault(63, "a finished job looked at, and another submitted, from another home")
def test_63_nobody_judges_a_job_from_elsewhere(cluster: Cluster, elsewhere: Path) -> None:
    cluster.coordinator()
    cluster.worker()
    with closing(Service(cluster.settings)) as service:
        job = submit(service)
    cluster.drain(job)
    before = files_below(elsewhere)
    for command in COMMANDS.values():
        cluster.hurt()
        with closing(service_at(cluster, elsewhere)) as stranger:
            with pytest.raises(StoreMismatch, match="belongs to the store"):
                command(stranger, job.public_id)
            # what needs no file is answered from anywhere
            assert stranger.status(job.public_id).succeeded
    assert files_below(elsewhere) == before
    assert [one.id for one in cluster.store.jobs.list()] == [job.id]
    cluster.count(job)
    cluster.check()


@pytest.mark.fault(63, "a submit from another home, its workers on the first one")
def test_63_the_home_of_the_first_submit_is_the_one(cluster: Cluster, elsewhere: Path) -> None:
    """The other direction: the first submit decides which folder is shared."""
    with closing(service_at(cluster, elsewhere)) as service:
        job = submit(service)
    for name, arguments in PROCESSES.items():
        cluster.hurt()
        assert cluster.start(name, run_process, arguments).wait() == StoreMismatch.exit_code
    for name, arguments in PROCESSES.items():
        cluster.start(name, run_process, arguments, home=elsewhere)
    wait_until(lambda: cluster.store.jobs.by_id(job.id).state.ended)
    with closing(service_at(cluster, elsewhere)) as service:
        assert service.status(job.public_id).succeeded
        assert service.results.verify(job.public_id) == []
        assert service.fsck() == []
    assert not (cluster.home / "parts").exists()

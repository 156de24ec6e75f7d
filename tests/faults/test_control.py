"""Faults 11, 52, 61, 62, 65: orders that come or end at a bad moment, versions that do not fit."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import orjson
import pytest
from sqlalchemy import text

from batchgen.core.states import JobState
from batchgen.database.database import Database
from batchgen.database.revisions import HEAD
from batchgen.errors import NotAllowed, SchemaMismatch
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.models.registry import Registry
from batchgen.service.submission import Submission, submit
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_migrations import current, upgrade
from tests.faults.test_process import FAILPOINTS, at
from tests.support.cluster import Cluster, Toll, running_cluster
from tests.support.homes import MODEL
from tests.support.nursery import Member, run_command
from tests.support.workers import questions, wait_until


@pytest.mark.fault(11, "kill -9 of a submit, before and after its job is in SQL")
@pytest.mark.parametrize("failpoint", ["submit.stored", "submit.committed"])
def test_11_a_submit_that_dies_is_a_job_or_nothing(cluster: Cluster, failpoint: str) -> None:
    arguments = [str(cluster.home), cluster.settings.database_url]
    member = cluster.start("submit", submit_once, arguments, failpoint=at(failpoint, "kill"))
    assert member.wait() == -signal.SIGKILL
    cluster.hurt()
    found = cluster.store.jobs.list()
    assert len(found) == (1 if failpoint == "submit.committed" else 0)
    # the same key again: the job that is there, or now there is one
    assert cluster.start("submit", submit_once, arguments).wait() == 0
    (job,) = cluster.store.jobs.list()
    assert found in ([], [job])
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)


@pytest.mark.fault(52, "cancelled at each step of a shard")
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_52_no_part_appears_behind_a_cancel(cluster: Cluster, failpoint: str) -> None:
    cluster.coordinator()
    job = cluster.submit()
    cluster.brake.after(40)  # one shard is complete, and the cancel finds others that are not
    worker = cluster.worker(failpoint=at(failpoint, "stop:1"))
    cluster.await_held(worker)
    cluster.store.jobs.cancel(job.id)
    cluster.store.jobs.cancel(job.id)
    cluster.hurt()
    cluster.brake.release()
    wait_until(lambda: woken(worker) and has_ended(cluster, job))
    rows = cluster.drain(job, state=JobState.CANCELLED)
    assert {row.error.code for row in rows if row.error} == {"batch_cancelled"}
    assert cluster.store.jobs.cancel(job.id).state is JobState.CANCELLED


@pytest.mark.fault(52, "cancelled once it is complete")
def test_52_a_completed_job_cannot_be_cancelled(cluster: Cluster) -> None:
    cluster.coordinator()
    cluster.worker()
    job = cluster.submit(20)
    cluster.drain(job)
    cluster.hurt()
    with pytest.raises(NotAllowed, match="is completed"):
        cluster.store.jobs.cancel(job.id)
    cluster.drain(job)


@pytest.mark.fault(65, "cancelled when worker and coordinator are dead")
def test_65_a_cancel_needs_no_other_process(cluster: Cluster) -> None:
    cluster.brake.after(10)
    coordinator, worker = cluster.coordinator(), cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    for member in (worker, coordinator):
        member.kill()
    cluster.hurt()

    def cancelled() -> bool:
        """Ask again until the leases of the dead have run out."""
        asked = cluster.start("cancel", run_command, ["cancel", job.public_id])
        return asked.wait() == 0 and has_ended(cluster, job)

    wait_until(cancelled)
    rows = cluster.drain(job, state=JobState.CANCELLED)
    assert {row.error.code for row in rows if row.error} == {"batch_cancelled"}


@pytest.mark.fault(61, "the schema upgraded under a working worker")
def test_61_an_old_worker_claims_nothing_of_a_new_schema(cluster: Cluster) -> None:
    coordinator = cluster.coordinator()
    cluster.brake.after(10)
    old = cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    set_revision(cluster, "9999")
    cluster.hurt()
    cluster.brake.release()
    assert old.wait() == SchemaMismatch.exit_code
    assert old.said("newer than")
    assert cluster.worker().wait() == SchemaMismatch.exit_code
    set_revision(cluster, HEAD)
    assert coordinator.is_alive
    cluster.worker()
    cluster.drain(job)


@pytest.mark.fault(61, "a new worker meets an old schema")
def test_61_a_new_worker_refuses_an_old_schema(cluster: Cluster) -> None:
    job = cluster.submit(20)
    set_revision(cluster, "0001")
    cluster.hurt()
    for member in (cluster.worker(), cluster.coordinator()):
        assert member.wait() == SchemaMismatch.exit_code
        assert member.said("batchgen db upgrade")
    set_revision(cluster, HEAD)
    cluster.coordinator()
    cluster.worker()
    cluster.drain(job)


@pytest.mark.fault(62, "a migration killed half-way")
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_62_a_migration_killed_half_way_has_not_happened(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, broker_url: str, toll: Toll
) -> None:
    url = f"sqlite:///{tmp_path}/fresh.db"
    if kind == "postgresql":
        url = request.getfixturevalue("empty_postgres_url")
    member = Member("migration", migrate, [url], Settings(home=tmp_path), tmp_path / "log", KILLED)
    assert member.wait() == -signal.SIGKILL
    member.close()
    toll.injections += 1
    assert current(url) is None
    assert upgrade(url) == HEAD
    with running_cluster(tmp_path, database_url=url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        cluster.coordinator()
        cluster.worker()
        cluster.drain(cluster.submit(20))


def submit_once(arguments: list[str]) -> int:
    """Be `batchgen submit` with an idempotency key."""
    home, url = arguments
    lines = b"\n".join(orjson.dumps(row) for row in questions(50))
    store = Store(Database(url))
    submit(
        io.BytesIO(lines),
        Submission(model=MODEL, idempotency_key="once"),
        store=store,
        storage=LocalStorage(Path(home)),
        model=Registry(Path(home) / "models").get(MODEL),
    )
    store.close()
    return 0


KILLED = {"BATCHGEN_FAILPOINT": "migration.applied=kill@1"}


def migrate(arguments: list[str]) -> int:
    """Be `batchgen db upgrade`."""
    upgrade(*arguments)
    return 0


def woken(worker: Member) -> bool:
    """Continue a worker that a failpoint stopped, and return True."""
    if worker.is_stopped:
        worker.send(signal.SIGCONT)
    return True


def has_ended(cluster: Cluster, job: JobRecord) -> bool:
    return cluster.store.jobs.by_id(job.id).state.ended


def set_revision(cluster: Cluster, revision: str) -> None:
    """Pretend that the database has another schema."""
    with cluster.store.database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})

"""Faults 29 to 34: disks that are full, fail, hang, are away, or hold other bytes than before."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from batchgen import failpoints
from batchgen.core.states import ShardState
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import BatchgenError, Corrupt, DatabaseUnavailable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.repair.invariants import check_tables
from batchgen.service import Service
from batchgen.storage.store_id import ensure_store_id
from batchgen_workers import testing
from tests.support.cluster import RECOVERY, TTL, Cluster, Toll, running_cluster
from tests.support.disks import Disk, mounted_disk, with_short_pauses
from tests.support.homes import MODEL
from tests.support.jobs import count_parts, new_job
from tests.support.nursery import Member
from tests.support.permissions import writable
from tests.support.servers import NOBODY
from tests.support.workers import files_below, wait_until

POINTS = ("storage.opening", "storage.written", "storage.synced", "storage.renamed")
# Files that are no parts are written by the same code: one point of theirs is enough for `make ci`.
OTHER_POINTS = [
    pytest.param(point, marks=() if point == "storage.written" else pytest.mark.long)
    for point in POINTS
]


# Of workers that must not lose a lease, however busy the machine is: one that is not given back
# holds up the job for as long.
LONG_LEASE = 60.0  # seconds


def start_worker(cluster: Cluster, **options: Any) -> Member:
    """Start a worker that tries a disk again soon."""
    return cluster.start("worker", with_short_pauses, ["worker", MODEL, testing.FAST], **options)


def lost(cluster: Cluster, job: JobRecord) -> int:
    """Return how many leases of a job ran out."""
    return sum(shard.lost for shard in cluster.store.jobs.shards(job.id))


@pytest.mark.fault(29, "no space: at open, write, fsync and rename of a part")
@pytest.mark.parametrize("point", POINTS)
def test_29_a_full_disk_costs_time_only(cluster: Cluster, point: str) -> None:
    cluster.coordinator()
    worker = start_worker(cluster, failpoint=f"{point}=raise:ENOSPC@1-3", lease_ttl=LONG_LEASE)
    job = cluster.submit()
    wait_until(lambda: worker.said("disk trouble"))
    cluster.hurt()
    cluster.drain(job)
    assert lost(cluster, job) == 0
    assert not [name for name in files_below(cluster.home / "parts") if name.endswith(".tmp")]


@pytest.mark.fault(29, "no space for a checkpoint")
def test_29_a_checkpoint_that_finds_no_room_is_missed(cluster: Cluster) -> None:
    cluster.coordinator()
    cluster.brake.after(10)
    worker = start_worker(
        cluster, failpoint="storage.written=raise:ENOSPC@1-2", lease_ttl=LONG_LEASE
    )
    job = cluster.submit(100)
    wait_until(lambda: worker.said("disk trouble"))
    cluster.hurt()
    cluster.brake.release()
    rows = cluster.drain(job)
    assert lost(cluster, job) == 0
    assert {row.attempt for row in rows} <= {1, 2}


@pytest.mark.fault(29, "no space for the dataset")
@pytest.mark.parametrize("point", OTHER_POINTS)
def test_29_a_dataset_that_finds_no_room_is_written_later(cluster: Cluster, point: str) -> None:
    failpoint = f"{point}=raise:ENOSPC@1-2"
    coordinator = cluster.start(
        "coordinator", with_short_pauses, ["coordinator"], failpoint=failpoint
    )
    cluster.worker()
    job = cluster.submit()
    wait_until(lambda: coordinator.said("dataset not written"))
    cluster.hurt()
    cluster.drain(job)
    assert cluster.store.jobs.by_id(job.id).error is None


@pytest.mark.fault(29, "no space for an input")
@pytest.mark.parametrize("point", OTHER_POINTS)
def test_29_a_submit_that_finds_no_room_leaves_nothing(cluster: Cluster, point: str) -> None:
    cluster.coordinator()
    cluster.worker()
    failpoints.arm(f"{point}=raise:ENOSPC")
    try:
        with pytest.raises(OSError, match="No space left"):
            cluster.submit()
    finally:
        failpoints.arm("")
    cluster.hurt()
    assert cluster.store.jobs.list() == []
    assert not [name for name in files_below(cluster.home / "inputs") if name.endswith(".tmp")]
    cluster.drain(cluster.submit())


@pytest.mark.long
@pytest.mark.fault(29, "8 MB of disk for parts, full")
def test_29_a_disk_that_is_really_full(cluster: Cluster) -> None:
    with mounted_disk(cluster.home / "parts") as disk:
        disk.fill()
        cluster.coordinator()
        worker = start_worker(cluster)
        job = cluster.submit()
        wait_until(lambda: worker.said("No space left on device"))
        cluster.hurt()
        wait_until(lambda: not leased(cluster, job))
        assert count_parts(cluster.store, job) == 0
        assert lost(cluster, job) == 0
        assert files_below(disk.folder) == ["ballast"]
        disk.empty()
        cluster.hurt()
        cluster.drain(job)
        assert lost(cluster, job) == 0
        end_all(cluster)


@pytest.mark.fault(30, "input/output error at fsync, once")
@pytest.mark.parametrize("point", ["storage.written", "storage.renamed"])
def test_30_what_could_not_be_forced_is_written_again(cluster: Cluster, point: str) -> None:
    cluster.coordinator()
    worker = start_worker(cluster, failpoint=f"{point}=raise:EIO@1")
    job = cluster.submit()
    wait_until(lambda: worker.said("Input/output error"))
    cluster.hurt()
    cluster.drain(job)
    assert lost(cluster, job) == 0


@pytest.mark.long
@pytest.mark.fault(30, "fsync fails in the kernel's name, once in each thread")
def test_30_no_file_is_forced_a_second_time(
    cluster: Cluster, needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("strace")
    worker = start_worker(cluster)
    wait_until(lambda: worker.said("listening"))
    job = cluster.submit()
    (cluster.home / "parts" / job.public_id).mkdir(parents=True)  # else it is what fails first
    trace = tmp_path / "trace"
    inject = "inject=fsync:error=EIO:when=1"
    command = ["strace", "-f", "-y", "-p", str(worker.pid), "-e", "trace=fsync", "-e", inject]
    with subprocess.Popen([*command, "-o", str(trace)], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        cluster.coordinator()
        wait_until(lambda: worker.said("Input/output error"))
        tracer.terminate()
    cluster.hurt()
    cluster.drain(job)
    assert lost(cluster, job) == 0
    calls = trace.read_text().splitlines()
    failed = [line.partition("<")[2].partition(">")[0] for line in calls if "EIO" in line]
    files = [path for path in failed if path.endswith(".tmp")]
    assert files
    for path in files:
        assert sum(path in line for line in calls) == 1
        assert not Path(path).exists()


@pytest.mark.long
@pytest.mark.fault(31, "the disk of SQLite full")
def test_31_a_full_disk_under_sqlite(
    sqlite_template: Path, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    with mounted_disk(tmp_path / "disk") as disk:
        shutil.copyfile(sqlite_template, disk.folder / "batchgen.db")
        url = f"sqlite:///{disk.folder / 'batchgen.db'}"
        with running_cluster(tmp_path, database_url=url, broker_url=broker_url) as cluster:
            cluster.toll = toll
            cluster.coordinator()
            cluster.brake.after(20)
            worker = cluster.worker()
            job = cluster.submit()
            cluster.await_done(job, 20)
            disk.fill()
            cluster.hurt()
            cluster.brake.release()
            wait_until(lambda: worker.said("database or disk is full"))
            with pytest.raises(DatabaseUnavailable, match="full"):
                cluster.store.jobs.submit(new_job(100_000))
            assert check_tables(cluster.store) == []
            disk.empty()
            cluster.hurt()
            cluster.drain(job)
            toll.assert_within(RECOVERY + 10.0)


@pytest.mark.long
@pytest.mark.fault(31, "the disk of PostgreSQL full")
def test_31_a_full_disk_under_postgresql(
    postgres_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> None:
    with (
        full_tablespace(postgres_url) as disk,
        running_cluster(tmp_path, database_url=postgres_url, broker_url=broker_url) as cluster,
    ):
        cluster.toll = toll
        cluster.coordinator()
        cluster.brake.after(20)
        cluster.worker()
        job = cluster.submit()
        cluster.await_done(job, 20)
        disk.fill()
        cluster.hurt()
        cluster.brake.release()
        with pytest.raises(DatabaseUnavailable, match="No space left"):
            cluster.store.jobs.submit(new_job(1_000_000))
        assert len(cluster.store.jobs.list()) == 1
        assert check_tables(cluster.store) == []
        time.sleep(TTL)  # renewals and commits fail meanwhile, or find room in old pages
        disk.empty()
        cluster.hurt()
        cluster.drain(job)
        toll.assert_within(RECOVERY + 10.0)


@pytest.mark.fault(32, "the folder of parts is a file, and a link to elsewhere")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_32_a_folder_that_is_none_is_refused(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = cluster.home / "parts"
    if kind == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.touch()
    cluster.coordinator()
    worker = start_worker(cluster)
    job = cluster.submit()
    wait_until(lambda: worker.said("disk trouble"))
    cluster.hurt()
    assert kind == "file" or worker.said("BATCHGEN_HOME")
    folder.unlink()
    cluster.drain(job)
    assert list(elsewhere.iterdir()) == []
    assert lost(cluster, job) == 0


def nothing_there(home: Path) -> None:
    """Leave the place of a home empty."""


def bare_mount_point(home: Path) -> None:
    """Leave a folder that a disk is mounted on, with the folders that a home has."""
    for name in ("inputs", "parts", "datasets"):
        (home / name).mkdir(parents=True)


def another_home(home: Path) -> None:
    """Put a home there that has files of its own, and another id."""
    ensure_store_id(home)
    for name in ("inputs", "parts", "datasets"):
        (home / name).mkdir()
        (home / name / "theirs").touch()


@pytest.mark.fault(32, "the home is away for a while, or another is in its place")
@pytest.mark.parametrize("replace", [nothing_there, bare_mount_point, another_home])
def test_32_a_home_that_is_away_fails_no_job(
    cluster: Cluster, replace: Callable[[Path], None]
) -> None:
    coordinator = cluster.start("coordinator", with_short_pauses, ["coordinator"])
    cluster.brake.after(10)
    worker = start_worker(cluster)
    job = cluster.submit()
    cluster.await_done(job, 10)
    away = cluster.home.with_name("away")
    cluster.home.rename(away)
    replace(cluster.home)
    found = files_below(cluster.home)
    cluster.hurt()
    cluster.brake.release()
    wait_until(lambda: worker.said("store not seen"))
    assert worker.said("BATCHGEN_HOME")
    assert files_below(cluster.home) == found
    shutil.rmtree(cluster.home, ignore_errors=True)
    away.rename(cluster.home)
    cluster.drain(job)
    assert coordinator.is_alive
    assert lost(cluster, job) == 0


@pytest.mark.long
@pytest.mark.fault(32, "the disk of parts is read only")
def test_32_a_disk_that_may_not_be_written_to(cluster: Cluster) -> None:
    with mounted_disk(cluster.home / "parts") as disk:
        disk.protect()
        cluster.coordinator()
        worker = start_worker(cluster)
        job = cluster.submit()
        wait_until(lambda: worker.said("Read-only file system"))
        cluster.hurt()
        disk.open_up()
        cluster.drain(job)
        assert lost(cluster, job) == 0
        end_all(cluster)


@pytest.mark.fault(32, "the folder that a dataset is exported to")
def test_32_an_output_folder_that_cannot_be_used(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(elsewhere)
    file.touch()
    with closing(Service(cluster.settings)) as service:
        for out in (link, file):
            with pytest.raises(BatchgenError):
                service.results.export(job.public_id, out)
    assert files_below(elsewhere) == ["precious"]


def delete(folder: Path) -> Path:
    path = next((folder / "data").iterdir())
    path.unlink()
    return path


def flip(folder: Path) -> Path:
    path = next((folder / "data").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    writable(path).write_bytes(data)
    return path


def add(folder: Path) -> Path:
    path = folder / "data" / "train-99999-of-00001.parquet"
    shutil.copyfile(next((folder / "data").iterdir()), path)
    return path


def forge(folder: Path) -> Path:
    path = folder / ".batchgen" / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace(" 200", " 199").replace(":200", ":199"))
    return path


@pytest.mark.fault(33, "a file of a finished dataset deleted, changed, added")
@pytest.mark.parametrize("harm", [delete, flip, add, forge])
def test_33_a_finished_dataset_shows_every_change(
    cluster: Cluster, tmp_path: Path, harm: Callable[[Path], Path]
) -> None:
    job = finished(cluster)
    with closing(Service(cluster.settings)) as service:
        changed = harm(service.results.dataset(job.public_id))
        cluster.hurt()
        problems = " ".join(service.results.verify(job.public_id))
        assert changed.name in problems or "manifest" in problems
        assert any(violation.invariant == "I12" for violation in service.fsck())
        out = tmp_path / "out"
        if harm is add:  # what the manifest does not name is not taken along
            service.results.export(job.public_id, out)
            assert verify_dataset(out) == []
        else:
            with pytest.raises(Corrupt):
                service.results.export(job.public_id, out)
            assert not (out / ".batchgen" / "manifest.json").exists()


@pytest.mark.fault(34, "a disk that hangs in the middle of a part")
def test_34_a_worker_that_hangs_on_a_disk_loses_its_lease(cluster: Cluster) -> None:
    cluster.coordinator()
    stuck = cluster.worker(failpoint="storage.written=pause:15@1")
    job = cluster.submit(20)
    wait_until(lambda: stuck.said("shard claimed"))
    cluster.hurt()
    cluster.worker()
    cluster.drain(job)
    stall = cluster.settings.stall_timeout
    cluster.toll.assert_within(stall + RECOVERY)
    wait_until(lambda: stuck.said("shard fenced"))
    cluster.check()


def leased(cluster: Cluster, job: JobRecord) -> bool:
    return any(shard.state is ShardState.LEASED for shard in cluster.store.jobs.shards(job.id))


def end_all(cluster: Cluster) -> None:
    """End every process: a disk in use cannot be taken away."""
    for member in cluster.members:
        member.kill()


def finished(cluster: Cluster) -> JobRecord:
    """Return a job that has ended well."""
    cluster.coordinator()
    cluster.worker()
    job = cluster.submit()
    cluster.drain(job)
    return cluster.store.jobs.by_id(job.id)


@contextmanager
def full_tablespace(url: str) -> Iterator[Disk]:
    """Move a database to a small disk for the block."""
    parsed = make_url(url).set(drivername="postgresql")
    folder = Path(str(parsed.query["host"])) / "tablespace"
    admin = parsed.set(database="postgres").render_as_string(hide_password=False)
    with mounted_disk(folder) as disk:
        shutil.chown(folder, NOBODY, NOBODY)
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            name = parsed.database
            connection.execute(f'ALTER DATABASE "{name}" SET TABLESPACE small')
            yield disk
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            connection.execute("DROP TABLESPACE small")

"""Faults 2 and 13: death at any system call of a commit, and power that fails after one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.database.database import Database, now_db
from batchgen.dataset.parts import part_key, read_results, write_part
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_invariants
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers.shard.finisher import footer_of
from tests.support.cluster import Cluster, Toll
from tests.support.disk_events import recorded_disk
from tests.support.jobs import OWNER, running_job, set_shard
from tests.support.result_rows import ok_row
from tests.support.workers import fake_runner, questions, run_all, submit_rows, wait_until

TTL = 60.0  # seconds
SYSCALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "sendto")


@pytest.mark.long
@pytest.mark.fault(2, "kill -9 at every Nth system call of a commit")
@pytest.mark.parametrize("syscall", SYSCALLS)
def test_02_death_at_any_system_call(
    cluster: Cluster, syscall: str, needs: Callable[..., None]
) -> None:
    needs("strace")
    storage = LocalStorage(cluster.home)
    job = running_job(cluster.store, 8)
    (shard,) = cluster.store.jobs.shards(job.id)
    number = 0
    ended = -signal.SIGKILL
    while ended == -signal.SIGKILL:
        number += 1
        ended = commit_until(cluster, shard.id, syscall, number)
        if ended == -signal.SIGKILL:
            cluster.hurt()
        assert check_parts(storage, job) >= 0
        assert check_invariants(cluster.store, storage) == []
        if cluster.store.jobs.progress(job.id).committed:
            job = running_job(cluster.store, 8)
            (shard,) = cluster.store.jobs.shards(job.id)
        else:
            expire_all(cluster.store, shard.id)
    assert ended == 0
    cluster.toll.rows_in += 8 * number


@pytest.mark.fault(13, "power fails: what was not forced to the disk is gone")
def test_13_what_sql_names_is_on_the_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toll: Toll
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with fake_runner(store, home) as runner, recorded_disk(monkeypatch) as events:
        job = submit_rows(store, home, runner.model, questions(100))
        run_all(runner, job)
    toll.injections += 1
    toll.rows_in += 100
    events.check_durable(home / "parts")
    paths = [segment.part.path for segment in store.finalization.segments(job.id) if segment.part]
    assert {home / path for path in paths} <= set(events.renamed())


def commit_until(cluster: Cluster, shard_id: int, syscall: str, number: int) -> int:
    """Claim and commit a shard in a process that dies at its `number`th call of `syscall`."""
    member = cluster.start("commit", commit_one, [cluster.settings.database_url, str(shard_id)])
    wait_until(lambda: member.is_stopped or member.status is not None)
    inject = f"inject={syscall}:signal=SIGKILL:when={number}"
    command = ["strace", "-f", "-p", str(member.pid), "-e", f"trace={syscall}", "-e", inject]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        member.send(signal.SIGCONT)
        for _ in tracer.stderr:
            pass
    return member.wait()


def commit_one(arguments: list[str]) -> int:
    """Stop; then claim a shard of eight rows, write its part and commit it."""
    url, shard_id = arguments
    store = Store(Database(url))
    storage = LocalStorage(Settings().home)
    lease = store.leases.claim(int(shard_id), owner=OWNER, ttl=TTL)
    assert lease is not None
    os.kill(os.getpid(), signal.SIGSTOP)
    rows = [ok_row(row) for row in range(lease.pos_start, lease.pos_end)]
    key = part_key(lease.job_public_id, lease.seq, lease.epoch)
    store.leases.commit(lease, write_part(storage, key, rows, footer_of(lease)))
    store.close()
    return 0


def check_parts(storage: LocalStorage, job: JobRecord) -> int:
    """Read every file of a job that has its name, and return how many there are."""
    found = sorted((storage.root / "parts" / job.public_id).glob("*.parquet"))
    for path in found:
        assert len(list(read_results(storage, str(path.relative_to(storage.root))))) == 8
    return len(found)


def expire_all(store: Store, shard_id: int) -> None:
    """Let the lease of the dead process run out."""
    set_shard(store, shard_id, lease_expires_at=now_db() - 1.0)

"""Each test leaves files of every kind behind and says which of them go."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.states import JobState
from batchgen.dataset.parts import part_key
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs.records.job_records import JobRecord, Lease
from batchgen.jobs.removals import RemovalManager
from batchgen.jobs.store import Store
from batchgen.repair.garbage import MIN_AGE, UPLOAD_AGES, Collector, GarbageManager
from batchgen.storage.storage import LocalStorage
from tests.support.jobs import (
    claim_first,
    commit_all,
    let_expire,
    new_job,
    part_of,
    running_job,
    set_job,
    set_shard,
)

OLD = 2 * MIN_AGE  # seconds
OTHER_JOB = "e" * 32
SHA256 = "a" * 64


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def collector(store: Store, storage: LocalStorage) -> Collector:
    return Collector(store, storage)


@pytest.fixture
def job(store: Store) -> JobRecord:
    """A running job of two shards."""
    return running_job(store, 40)


def put(storage: LocalStorage, key: str, *, age: float = OLD, size: int = 3) -> str:
    """Write a file that was last touched some time ago."""
    path = storage.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return key


def put_part(storage: LocalStorage, lease: Lease, *, kind: Any = "part", **options: Any) -> str:
    return put(storage, part_key(lease.job_public_id, lease.seq, lease.epoch, kind), **options)


def put_generation(storage: LocalStorage, job: JobRecord, epoch: int, *, age: float = OLD) -> str:
    root = f"datasets/{job.public_id}/e{epoch}"
    put(storage, f"{root}/data/train.parquet")
    for folder in (storage.path(f"{root}/data"), storage.path(root)):
        moment = time.time() - age
        os.utime(folder, (moment, moment))
    return root


def reclaim(store: Store, lease: Lease) -> Lease:
    """Let the lease be lost and taken by somebody else."""
    let_expire(store, lease)
    again = store.leases.claim(lease.shard_id, owner="host/2", ttl=60.0)
    assert again is not None
    return again


def collected(collector: Collector) -> set[str]:
    """Collect, and see that it is what was announced."""
    announced = list(collector.find())
    removed = list(collector.collect())
    assert removed == announced
    assert list(collector.find()) == []
    return {garbage.key for garbage in removed}


def end(store: Store, job: JobRecord, dataset: str) -> None:
    """Complete a job with a dataset at a storage key."""
    commit_all(store, job)
    assert store.finalization.finalizable() == [job.id]
    final = store.finalization.claim(job.id, owner="host/1", ttl=60.0)
    assert final is not None
    store.finalization.complete(final, dataset_path=dataset, manifest_sha256="f" * 64)


def test_files_of_an_epoch_that_has_passed_go(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    late = claim_first(store, job)
    garbage = {put_part(storage, late, kind=kind) for kind in ("part", "ckpt")}
    unfinished = f"parts/{job.public_id}/.{late.seq}.e{late.epoch}.ab.parquet.0123456789ab.tmp"
    garbage.add(put(storage, unfinished))
    current = put_part(storage, reclaim(store, late))
    assert collected(collector) == garbage
    assert storage.size(current) == 3


@pytest.mark.parametrize("unregistered", ["part", "ckpt"])
def test_what_may_still_be_committed_stays(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord, unregistered: str
) -> None:
    lease = claim_first(store, job)
    put_part(storage, lease, kind=unregistered)
    assert collected(collector) == set()
    let_expire(store, lease)
    store.leases.reap()
    assert collected(collector) == set()


def test_what_a_row_names_stays_whatever_its_epoch(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    first, second = claim_first(store, job), claim_first(store, job)
    saved, part = part_of(first, tag="saved"), part_of(second)
    store.leases.checkpoint(first, saved)
    store.leases.commit(second, part)
    put(storage, saved.path)
    put(storage, part.path)
    reclaim(store, first)
    assert collected(collector) == set()
    store.jobs.cancel(job.id)
    assert collected(collector) == set()


def test_whatever_else_a_final_shard_left_goes(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    lease = claim_first(store, job)
    part = part_of(lease)
    store.leases.commit(lease, part)
    put(storage, part.path)
    other = put_part(storage, lease, kind="ckpt")
    assert collected(collector) == {other}


@pytest.mark.parametrize("state", ["split", "stopped"])
def test_a_shard_that_counts_no_more_leaves_nothing(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord, state: str
) -> None:
    lease = claim_first(store, job)
    set_shard(store, lease.shard_id, state=state, lease_owner=None, lease_expires_at=None)
    left = put_part(storage, lease)
    assert collected(collector) == {left}


def test_a_young_file_stays(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    late = claim_first(store, job)
    reclaim(store, late)
    put_part(storage, late, age=MIN_AGE / 2)
    put(storage, input_key(SHA256), age=MIN_AGE / 2)
    assert collected(collector) == set()


def test_age_is_told_by_the_clock_of_the_files_alone(
    store: Store,
    storage: LocalStorage,
    collector: Collector,
    job: JobRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = claim_first(store, job)
    reclaim(store, late)
    put_part(storage, late, age=MIN_AGE / 2)
    ahead = time.time() + 10 * MIN_AGE
    monkeypatch.setattr(time, "time", lambda: ahead)
    assert collected(collector) == set()


def test_generations_that_are_not_the_dataset_go(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    dataset = f"datasets/{job.public_id}/e1"
    end(store, job, dataset)
    roots = [put_generation(storage, job, epoch) for epoch in (1, 2)]
    assert collected(collector) == {roots[1]}
    assert not storage.path(roots[1]).exists()
    assert storage.size(f"{dataset}/data/train.parquet") == 3


def test_the_generation_being_written_stays(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    set_job(store, job.id, state=JobState.FINALIZING, final_epoch=2)
    roots = [put_generation(storage, job, epoch) for epoch in (1, 2)]
    young = put_generation(storage, running_job(store), 0)
    put(storage, f"{young}/data/train-2.parquet", age=0)
    assert collected(collector) == {roots[0]}


def test_a_failed_job_leaves_no_files(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    lease = claim_first(store, job)
    store.jobs.fail(job.id, "The input changed.")
    left = {put_part(storage, lease), put_generation(storage, job, 1)}
    assert collected(collector) == left


def test_nothing_is_known_of_files_of_other_jobs_and_other_names(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    kept = [
        put(storage, part_key(OTHER_JOB, 1, 1)),
        put(storage, f"parts/{job.public_id}/notes.txt"),
        put(storage, f"parts/{job.public_id}/{10**9}.e1.ab.parquet"),
        put(storage, "parts/notes.txt"),
        put(storage, "inputs/notes.txt"),
        put(storage, "datasets/notes/e1/data"),
    ]
    assert collected(collector) == set()
    assert all(storage.size(key) == 3 for key in kept)
    assert collector.unknown() == [OTHER_JOB]


def test_a_link_is_removed_and_not_followed(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord, tmp_path: Path
) -> None:
    elsewhere = put(storage, "elsewhere/precious", age=OLD)
    store.jobs.fail(job.id, "The input changed.")
    link = storage.path(f"datasets/{job.public_id}/e1")
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    os.utime(link, (1.0, 1.0), follow_symlinks=False)
    assert collected(collector) == {f"datasets/{job.public_id}/e1"}
    assert storage.size(elsewhere) == 3


def test_an_input_that_no_job_was_submitted_on_goes(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    used = put(storage, input_key(job.input_sha256))
    orphan = {put(storage, key(SHA256)) for key in (input_key, index_key)}
    assert collected(collector) == orphan
    assert storage.size(used) == 3


def test_an_upload_may_take_longer_than_a_file_that_is_done(
    storage: LocalStorage, collector: Collector
) -> None:
    put(storage, "inputs/.incoming.00ff.tmp")
    dead = put(storage, "inputs/.incoming.index.00ff.tmp", age=(UPLOAD_AGES + 1) * MIN_AGE)
    assert collected(collector) == {dead}


def test_no_input_goes_while_a_job_is_unknown(storage: LocalStorage, collector: Collector) -> None:
    """The database may be an older one than the files, or another's."""
    put(storage, input_key(SHA256))
    unknown = storage.path(put(storage, part_key(OTHER_JOB, 1, 1)))
    assert collected(collector) == set()
    unknown.unlink()
    assert collected(collector) == {input_key(SHA256)}


def test_an_input_that_a_submit_stored_meanwhile_stays(
    storage: LocalStorage, collector: Collector
) -> None:
    key = put(storage, input_key(SHA256))
    assert [found.key for found in collector.find()] == [key]
    put(storage, index_key(SHA256), age=0)
    assert collector._delete_input(SHA256) is False
    assert storage.size(key) == 3


def test_a_submit_waits_while_its_input_is_removed(store: Store, storage: LocalStorage) -> None:
    """It then inserts its row, and finds that the files are to be stored again."""
    submitted = threading.Event()
    threads: list[threading.Thread] = []

    def submit() -> None:
        store.jobs.submit(new_job(input_sha256=SHA256))
        submitted.set()

    def delete_input(sha256: str) -> bool:
        threads.append(threading.Thread(target=submit))
        threads[0].start()
        assert not submitted.wait(0.3)
        storage.delete(input_key(sha256))
        return True

    put(storage, input_key(SHA256))
    manager = RemovalManager(store.database)
    assert manager.remove_input(SHA256, delete_input=delete_input) is True
    threads[0].join()
    assert submitted.is_set()
    assert storage.size(input_key(SHA256)) is None
    assert GarbageManager(store.database).orphans([SHA256]) == []
    assert manager.remove_input(SHA256, delete_input=delete_input) is False


def test_garbage_of_one_job_that_stays_does_not_keep_that_of_others(
    store: Store, storage: LocalStorage, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn, other = running_job(store, 10), running_job(store, 10)
    keys = {}
    for job in (stubborn, other):
        late = claim_first(store, job)
        keys[job.id] = put_part(storage, late)
        reclaim(store, late)
    delete = LocalStorage.delete

    def refuse(self: LocalStorage, key: str) -> None:
        if key == keys[stubborn.id]:
            raise PermissionError(1, "Operation not permitted")
        delete(self, key)

    monkeypatch.setattr(LocalStorage, "delete", refuse)
    with pytest.raises(PermissionError):
        list(collector.collect())
    told: list[str] = []
    collector.on_trouble = lambda job, error: told.append(job)
    assert {garbage.key for garbage in collector.collect()} == {keys[other.id]}
    assert told == [stubborn.public_id]


def test_what_was_registered_meanwhile_stays(
    store: Store, storage: LocalStorage, collector: Collector, job: JobRecord
) -> None:
    lease = claim_first(store, job)
    part = part_of(lease)
    put(storage, part.path)
    current = reclaim(store, lease)
    assert [found.key for found in collector.find()] == [part.path]
    store.leases.commit(current, part)
    manager = GarbageManager(store.database)
    assert manager.remove(job.public_id, [part.path], delete_file=storage.delete) == []
    assert storage.size(part.path) == 3


def test_a_job_removed_meanwhile_is_nothing_to_collect(store: Store) -> None:
    key = part_key(OTHER_JOB, 1, 1)
    assert GarbageManager(store.database).remove(OTHER_JOB, [key], delete_file=pytest.fail) == []


def test_two_collectors_at_once_remove_each_file_once_or_twice(
    store: Store, storage: LocalStorage, job: JobRecord
) -> None:
    late = claim_first(store, job)
    keys = {put_part(storage, late) for _ in range(300)}
    reclaim(store, late)
    failures: list[Exception] = []

    def collect() -> None:
        try:
            list(Collector(store, storage).collect())
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(error)

    threads = [threading.Thread(target=collect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(storage.size(key) is None for key in keys)


def test_an_empty_home_holds_nothing(collector: Collector) -> None:
    assert collected(collector) == set()
    assert collector.unknown() == []

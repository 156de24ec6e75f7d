from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from batchgen.core.states import JobState
from batchgen.database.database import now_db
from batchgen.database.tables import inputs, removals
from batchgen.errors import Fenced, JobNotFound, NotAllowed
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.removals import KEPT_FOR, RemovalManager, Remover
from batchgen.jobs.store import Store
from batchgen.repair.garbage import Collector
from batchgen.repair.invariants import check_tables
from batchgen.storage.storage import LocalStorage
from tests.support.jobs import (
    claim_first,
    commit_all,
    count_parts,
    let_expire,
    new_job,
    part_of,
    running_job,
    set_job,
)
from tests.support.workers import files_below


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def remover(store: Store, storage: LocalStorage) -> Remover:
    return Remover(store.database, storage)


def put(storage: LocalStorage, *keys: str) -> None:
    for key in keys:
        with storage.write(key):
            pass


def put_files(storage: LocalStorage, job: JobRecord) -> None:
    """Write a file of each kind that a job has."""
    put(storage, input_key(job.input_sha256), index_key(job.input_sha256))
    put(storage, f"parts/{job.public_id}/1.e1.aa.parquet", f"datasets/{job.public_id}/e1/README.md")


def ended_job(store: Store, storage: LocalStorage, **fields: Any) -> JobRecord:
    job = running_job(store, **fields)
    put_files(storage, job)
    return store.jobs.fail(job.id, "broken")


def test_nothing_is_left_of_a_removed_job(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    job = running_job(store)
    put_files(storage, job)
    lease = claim_first(store, job)
    store.leases.checkpoint(lease, part_of(lease))
    commit_all(store, job)
    store.jobs.fail(job.id, "broken")
    other = running_job(store)
    put_files(storage, other)
    kept = [name for name in files_below(storage.root) if job.public_id not in name]
    remover.remove(job.public_id)
    assert files_below(storage.root) == [name for name in kept if job.input_sha256 not in name]
    assert count_parts(store, job) == 0
    with pytest.raises(JobNotFound):
        store.jobs.by_id(job.id)
    assert [one.id for one in store.jobs.list()] == [other.id]
    assert check_tables(store) == []


def test_removed_twice_is_removed(store: Store, storage: LocalStorage, remover: Remover) -> None:
    job = ended_job(store, storage)
    for _ in range(2):
        remover.remove(job.public_id)
        assert files_below(storage.root) == []
    with pytest.raises(JobNotFound):
        remover.remove("e" * 32)


def test_an_input_that_another_job_uses_stays(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    sha256 = new_job().input_sha256
    first, second = (ended_job(store, storage, input_sha256=sha256) for _ in range(2))
    remover.remove(first.public_id)
    assert storage.size(input_key(sha256)) is not None
    remover.remove(second.public_id)
    assert files_below(storage.root) == []
    with store.database.begin_reading() as connection:
        assert connection.execute(select(func.count()).select_from(inputs)).scalar() == 0


def test_an_input_that_is_submitted_again_is_not_the_removed_job_s(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    job = ended_job(store, storage)
    remover.remove(job.public_id)
    put(storage, input_key(job.input_sha256))  # a submit has stored it and is about to insert
    assert remover.unfinished() == []
    list(Collector(store, storage).collect())
    assert storage.size(input_key(job.input_sha256)) is not None


@pytest.mark.parametrize("state", ["queued", "running", "finalizing"])
def test_a_job_that_may_go_on_is_not_removed(
    store: Store, storage: LocalStorage, remover: Remover, state: str
) -> None:
    job = running_job(store)
    put_files(storage, job)
    set_job(store, job.id, state=state)
    wanted = "batchgen wait" if state == "finalizing" else "batchgen cancel"
    with pytest.raises(NotAllowed, match=f"is {state}.*{wanted} {job.public_id}"):
        remover.remove(job.public_id)
    assert len(files_below(storage.root)) == 4


def test_a_stopping_job_is_removed_once_nobody_holds_it(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    job = running_job(store)
    put_files(storage, job)
    lease = claim_first(store, job)
    store.jobs.cancel(job.id)
    with pytest.raises(NotAllowed, match="handing its rows back"):
        remover.remove(job.public_id)
    let_expire(store, lease)
    remover.remove(job.public_id)
    assert files_below(storage.root) == []
    for late in (
        lambda: store.leases.renew(lease, rows_done=0, ttl=60.0),
        lambda: store.leases.commit(lease, part_of(lease)),
        lambda: store.leases.release(lease),
    ):
        with pytest.raises(Fenced):
            late()
    # no id is given twice: the old lease fits no shard of the next job
    later = running_job(store)
    assert lease.shard_id not in {record.id for record in store.jobs.shards(later.id)}


def test_a_cancelled_job_is_removed_unless_its_dataset_is_being_written(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    job = running_job(store)
    store.jobs.cancel(job.id)
    assert store.finalization.finalizable() == [job.id]
    final = store.finalization.claim(job.id, owner="host/1", ttl=60.0)
    assert final is not None
    with pytest.raises(NotAllowed, match="is finalizing"):
        remover.remove(job.public_id)
    set_job(store, job.id, final_expires_at=now_db() - 1.0)
    remover.remove(job.public_id)
    with pytest.raises(Fenced):
        store.finalization.complete(final, dataset_path="datasets/x/e1", manifest_sha256="f" * 64)


def test_a_removal_that_was_cut_off_is_finished_by_the_collector(
    store: Store, storage: LocalStorage
) -> None:
    job = ended_job(store, storage)
    RemovalManager(store.database).begin(job.public_id)
    assert len(files_below(storage.root)) == 4
    collector = Collector(store, storage)
    assert collector.unknown() == []
    announced = list(collector.find())
    assert {found.key.partition("/")[0] for found in announced} == {"inputs", "parts", "datasets"}
    assert list(collector.collect()) == announced
    assert files_below(storage.root) == []
    assert list(collector.find()) == []


def test_a_late_file_of_a_removed_job_goes_too(
    store: Store, storage: LocalStorage, remover: Remover
) -> None:
    """A worker slept between the rename of its part and its COMMIT, which fences it."""
    job = ended_job(store, storage)
    remover.remove(job.public_id)
    put(storage, f"parts/{job.public_id}/1.e1.bb.parquet")
    collector = Collector(store, storage)
    assert [found.key for found in collector.collect()] == [f"parts/{job.public_id}"]
    age = KEPT_FOR + 1.0
    with store.database.begin() as connection:
        connection.execute(update(removals).values(removed_at=now_db() - age))
    put(storage, f"parts/{job.public_id}/1.e1.cc.parquet")
    assert len(list(collector.collect())) == 1
    assert RemovalManager(store.database).all() == []


def test_a_file_that_cannot_be_deleted_is_tried_again(
    store: Store, storage: LocalStorage, remover: Remover, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended_job(store, storage)

    def refuse(_: Path) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr("batchgen.jobs.removals.remove_folder", refuse)
        with pytest.raises(PermissionError):
            remover.remove(job.public_id)
    (removal,) = remover.unfinished()
    assert removal.public_id == job.public_id
    remover.remove(job.public_id)
    assert files_below(storage.root) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_unknown_outcomes_of_a_removal_are_one_removal(
    store: Store,
    storage: LocalStorage,
    remover: Remover,
    break_commit: Callable[[str], list[str]],
    moment: str,
) -> None:
    job = ended_job(store, storage)
    broken = break_commit(moment)
    remover.remove(job.public_id)
    assert broken == [moment]
    assert files_below(storage.root) == []
    assert job.state is JobState.FAILED
    assert len(RemovalManager(store.database).all()) == 1

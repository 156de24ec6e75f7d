from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.states import JobState
from batchgen.dataset.dataset import DatasetMeta, write_dataset
from batchgen.dataset.manifest import read_manifest
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Fenced
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.repair.invariants import check_invariants
from batchgen.storage.storage import LocalStorage
from batchgen.telemetry.catalogue import Process
from batchgen_workers.service import finaliser as module
from batchgen_workers.service.finaliser import Finaliser
from batchgen_workers.shard.failure_limit import MAX_FAILURES
from batchgen_workers.testing import CACHED_TOKENS
from tests.support.homes import pin_model
from tests.support.jobs import set_job, state_of
from tests.support.metrics import Changes
from tests.support.permissions import writable
from tests.support.workers import (
    answer_of,
    expected_kv,
    fake_runner,
    files_below,
    questions,
    run_all,
    submit_rows,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> ModelRecord:
    return pin_model(home)


@pytest.fixture
def finaliser(store: Store, home: Path) -> Finaliser:
    return Finaliser(store=store, storage=LocalStorage(home), ttl=60.0)


def computed(store: Store, home: Path, model: ModelRecord, n_rows: int = 40) -> JobRecord:
    job = submit_rows(store, home, model, questions(n_rows))
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    return job


def folder_of(store: Store, home: Path, job: JobRecord) -> Path:
    path = store.jobs.by_id(job.id).dataset_path
    assert path is not None
    return home / path


def test_a_computed_job_becomes_a_dataset(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    job = computed(store, home, model)
    changes = Changes(Process.COORDINATOR)
    assert finaliser.run_once() == 1
    assert state_of(store, job) is JobState.COMPLETED
    assert changes() == {
        'batchgen_jobs_ended_total{state="completed"}': 1,
        'batchgen_parquet_rows_written_total{file="dataset"}': 40,
    }
    folder = folder_of(store, home, job)
    assert verify_dataset(folder) == []
    rows = list(iter_rows(folder))
    assert [row.row for row in rows] == list(range(40))
    assert [row.choices[0].text for row in rows] == [answer_of(row) for row in range(40)]
    assert check_invariants(store, LocalStorage(home)) == []
    assert finaliser.run_once() == 0


def test_the_dataset_says_what_its_rows_did_to_the_pool(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    job = computed(store, home, model)
    finaliser.run_once()
    totals = read_manifest(folder_of(store, home, job)).totals
    assert totals.kv == expected_kv(40)
    assert totals.kv == store.jobs.progress(job.id).kv
    assert totals.cached_tokens == 40 * CACHED_TOKENS
    card = (folder_of(store, home, job) / "README.md").read_text()
    assert "75.0% of its slots filled, 25.0% of its blocks saved by sharing" in card


def test_rows_that_were_never_computed_say_why(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    lines: list[dict[str, Any] | bytes] = [*questions(40), b"{broken"]
    job = submit_rows(store, home, model, lines)
    with fake_runner(store, home) as worker:
        worker.run_shard(store.jobs.shards(job.id)[0].id)
        worker.drain(60.0)
    store.jobs.cancel(job.id)
    assert finaliser.run_once() == 1
    assert state_of(store, job) is JobState.CANCELLED
    rows = list(iter_rows(folder_of(store, home, job)))
    codes = [row.error and row.error.code for row in rows]
    assert codes == [None] * 32 + ["batch_cancelled"] * 8 + ["invalid_json"]
    assert [row.custom_id for row in rows[:40]] == [f"q{row}" for row in range(40)]
    assert check_invariants(store, LocalStorage(home)) == []


def test_a_job_that_never_started_can_be_stopped(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    module_rows = 2 * module.ROWS_AT_ONCE + 1
    job = submit_rows(store, home, model, questions(module_rows), start=False)
    set_job(store, job.id, deadline=1.0)
    store.dispatch.expire_due()
    assert finaliser.run_once() == 1
    assert state_of(store, job) is JobState.EXPIRED
    rows = list(iter_rows(folder_of(store, home, job)))
    assert {row.error.code for row in rows if row.error} == {"batch_expired"}
    assert len(rows) == module_rows


def test_a_part_changed_on_disk_fails_the_job_and_names_it(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    job = computed(store, home, model, 10)
    (name,) = files_below(home / "parts")
    path = home / "parts" / name
    writable(path).write_bytes(path.read_bytes()[:-1] + b"x")
    changes = Changes(Process.COORDINATOR)
    assert finaliser.run_once() == 1
    assert changes() == {'batchgen_jobs_ended_total{state="failed"}': 1}
    record = store.jobs.by_id(job.id)
    assert record.state is JobState.FAILED
    assert name in (record.error or "")
    assert files_below(home / "datasets") == []


def test_trouble_with_the_disk_is_tried_again_later(
    store: Store,
    home: Path,
    model: ModelRecord,
    finaliser: Finaliser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = computed(store, home, model, 10)
    monkeypatch.setattr(module, "PAUSE_AFTER_TROUBLE", 0.0)
    with monkeypatch.context() as full:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(module, "write_dataset", refuse)
        assert finaliser.run_once() == 0
    record = store.jobs.by_id(job.id)
    assert record.state is JobState.FINALIZING
    assert "No space" in (record.error or "")
    assert finaliser.run_once() == 1
    assert state_of(store, job) is JobState.COMPLETED


def test_after_trouble_a_job_waits_its_turn(
    store: Store,
    home: Path,
    model: ModelRecord,
    finaliser: Finaliser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed(store, home, model, 10)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_dataset", refuse)
    finaliser.run_once()
    epoch = store.jobs.list()[0].final_epoch
    finaliser.run_once()
    assert store.jobs.list()[0].final_epoch == epoch


def test_a_dataset_that_fails_each_time_fails_its_job_and_no_other(
    store: Store,
    home: Path,
    model: ModelRecord,
    finaliser: Finaliser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, other = computed(store, home, model, 10), computed(store, home, model, 12)

    def refuse(*args: Any, meta: DatasetMeta, **fields: Any) -> Any:
        if meta.n_rows == 10:
            raise NotImplementedError("Nested data conversions")
        return write_dataset(*args, meta=meta, **fields)

    monkeypatch.setattr(module, "write_dataset", refuse)
    monkeypatch.setattr(module, "PAUSE_AFTER_TROUBLE", 0.0)
    assert finaliser.run_once() == 1
    assert state_of(store, other) is JobState.COMPLETED
    for _ in range(MAX_FAILURES - 2):
        assert finaliser.run_once() == 0
        assert state_of(store, job) is JobState.FINALIZING
    assert finaliser.run_once() == 1
    failed = store.jobs.by_id(job.id)
    assert failed.state is JobState.FAILED
    assert (
        failed.error
        == "The dataset could not be written: NotImplementedError: Nested data conversions"
    )


def test_one_dataset_that_cannot_be_written_does_not_keep_the_others_waiting(
    store: Store,
    home: Path,
    model: ModelRecord,
    finaliser: Finaliser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, healthy = (computed(store, home, model, 10) for _ in range(2))

    def fail_once(*args: Any, **fields: Any) -> Any:
        if fields["meta"].job_id == broken.public_id:
            raise RuntimeError("nobody thought of this")
        return write_dataset(*args, **fields)

    monkeypatch.setattr(module, "write_dataset", fail_once)
    assert finaliser.run_once() == 1
    assert state_of(store, healthy) is JobState.COMPLETED
    left = store.jobs.by_id(broken.id)
    assert left.state is JobState.FINALIZING
    assert left.error == "RuntimeError: nobody thought of this"


def test_a_finaliser_that_lost_its_lease_leaves_nothing(
    store: Store,
    home: Path,
    model: ModelRecord,
    finaliser: Finaliser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = computed(store, home, model, 10)
    write = write_dataset

    def slow(*args: Any, **fields: Any) -> Any:
        info = write(*args, **fields)
        set_job(store, job.id, final_expires_at=1.0)
        assert store.finalization.claim(job.id, owner="other/2", ttl=60.0) is not None
        return info

    monkeypatch.setattr(module, "write_dataset", slow)
    assert finaliser.run_once() == 0
    assert state_of(store, job) is JobState.FINALIZING
    assert files_below(home / "datasets") == []


def test_a_stopping_finaliser_hands_the_job_over(
    store: Store, home: Path, model: ModelRecord, finaliser: Finaliser
) -> None:
    job = computed(store, home, model, 10)
    finaliser.token.cancel()
    assert finaliser.run_once() == 0
    assert files_below(home / "datasets") == []
    other = Finaliser(store=store, storage=LocalStorage(home), ttl=60.0)
    assert other.run_once() == 1
    assert state_of(store, job) is JobState.COMPLETED


def test_a_long_write_keeps_its_lease(
    store: Store,
    home: Path,
    model: ModelRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed(store, home, model, 10)
    renewed = threading.Event()
    renew, write = store.finalization.renew, write_dataset
    calls: list[float] = []

    def counted(final: Any, *, ttl: float) -> None:
        renew(final, ttl=ttl)
        calls.append(ttl)
        if len(calls) >= 3:
            renewed.set()

    def slow(*args: Any, **fields: Any) -> Any:
        assert renewed.wait(30)
        return write(*args, **fields)

    monkeypatch.setattr(store.finalization, "renew", counted)
    monkeypatch.setattr(module, "write_dataset", slow)
    assert Finaliser(store=store, storage=LocalStorage(home), ttl=0.3).run_once() == 1


def test_a_lost_lease_is_noticed_while_segments_are_read(
    store: Store,
    home: Path,
    model: ModelRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = computed(store, home, model, 10)
    lost = threading.Event()

    def fenced(*_: object, **__: object) -> None:
        lost.set()
        raise Fenced

    segments = store.finalization.segments

    def late(job_id: int) -> Any:
        assert lost.wait(30)
        return segments(job_id)

    monkeypatch.setattr(store.finalization, "renew", fenced)
    monkeypatch.setattr(store.finalization, "segments", late)
    assert Finaliser(store=store, storage=LocalStorage(home), ttl=60.0).run_once() == 0
    assert state_of(store, job) is JobState.FINALIZING
    assert files_below(home / "datasets") == []

"""A worker bounds long answers, reports running rows, and gives up what fails each time."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.row_lengths import RowLengths
from batchgen.core.states import JobState, ShardState
from batchgen.errors import Corrupt
from batchgen.jobs.creation import job_creation
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.repair.invariants import check_invariants
from batchgen.service import Meter, Service
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers.shard import finisher, runner
from batchgen_workers.shard.failure_limit import MAX_FAILURES
from batchgen_workers.shard.shard import ResultLimits
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.jobs import shard, state_of, states_of
from tests.support.workers import (
    answer_of,
    expected_kv,
    fake_runner,
    files_below,
    questions,
    rows_of_parts,
    run_all,
    submit_rows,
    wait_until,
)

LONG = 1_000_000  # tokens; longer than any test


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> ModelRecord:
    return pin_model(home)


def sound(store: Store, home: Path) -> bool:
    return check_invariants(store, LocalStorage(home)) == []


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Refuse every part and checkpoint until the patch is undone."""
    monkeypatch.setattr(runner, "DISK_PAUSE", 0.05)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(finisher, "write_part", refuse)
        yield patch


def test_answers_without_room_in_memory_wait_in_the_checkpoint(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(12))
    (record,) = store.jobs.shards(job.id)
    hold.after(7)
    with fake_runner(store, home, limits=ResultLimits(memory_bytes=2000)) as worker:
        worker.run_shard(record.id)
        (held,) = worker.shards
        wait_until(lambda: held.rows_done == 7 and not held.is_heavy)
        in_memory, *_ = held.results()
        assert held.rests_on_checkpoint and len(in_memory) <= 3
        hold.release()
        wait_until(lambda: not len(worker.shards))
    rows = rows_of_parts(store, home, job)
    assert [row.choices[0].text for row in rows] == [answer_of(row) for row in range(12)]
    assert store.jobs.progress(job.id).kv == expected_kv(12)
    (part,) = [segment.part for segment in store.finalization.segments(job.id)]
    assert part is not None
    assert files_below(home / "parts") == [part.path.removeprefix("parts/")]
    assert sound(store, home)


def test_a_job_of_equal_rows_has_speed_an_end_and_rows_before_its_shard_is_committed(
    store: Store, home: Path, model: ModelRecord, hold: Hold, sqlite_url: str
) -> None:
    job = submit_rows(store, home, model, questions(12), lengths=RowLengths(answer_tokens=4.0))
    (record,) = store.jobs.shards(job.id)
    hold.after(0)
    service = Service(Settings(home=home, database_url=sqlite_url))
    quick: dict[str, Any] = {"lease_ttl": 0.6, "checkpoint_interval": 0.05}
    with closing(service), fake_runner(store, home, **quick) as worker:
        worker.run_shard(record.id)
        # three of the four words of each row
        wait_until(lambda: store.jobs.progress(job.id).tokens_running == 36)
        view = service.status(job.public_id)
        rates = Meter().observe(view)
        assert (view.rows_done, view.tokens_left, view.fraction) == (0, 12.0, 0.75)
        assert rates.tokens_per_second and rates.eta_seconds
        assert list(service.results.rows(job.public_id, partial=True)) == []
        hold.after(5)
        wait_until(lambda: _checkpointed(store, record.id) == 5)
        rows = list(service.results.rows(job.public_id, partial=True))
        assert [row.choices[0].text for row in rows] == [answer_of(row.row) for row in rows]
        assert len(rows) == 5
        wait_until(lambda: store.jobs.progress(job.id).tokens_in_work == 20)
        hold.release()
        wait_until(lambda: not len(worker.shards))
        assert len(list(service.results.rows(job.public_id, partial=True))) == 12


def test_long_answers_make_several_parts_of_one_shard(
    store: Store, home: Path, model: ModelRecord, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_creation, "shard_ranges", lambda n_rows, *_: [(0, n_rows)])
    job = submit_rows(store, home, model, questions(200))
    hold.after(3)
    few: dict[str, Any] = {"engine": {"max_num_seqs": 2}, "limits": ResultLimits(part_bytes=1500)}
    (whole,) = store.jobs.shards(job.id)
    with fake_runner(store, home, **few) as worker:
        feeder = threading.Thread(target=worker.run_shard, args=(whole.id,))
        feeder.start()
        wait_until(lambda: sum(held.rows_done for held in worker.shards) == 3)
        hold.release()
        feeder.join()
        wait_until(lambda: not len(worker.shards))
    begun, rest = store.jobs.shards(job.id)
    assert (begun.state, rest.state) == (ShardState.COMMITTED, ShardState.READY)
    assert 3 < begun.pos_end == rest.pos_start < 200
    assert sound(store, home)


def test_a_full_disk_ends_a_shard_that_memory_has_no_room_for(
    store: Store, home: Path, model: ModelRecord, full_disk: pytest.MonkeyPatch, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(12))
    (record,) = store.jobs.shards(job.id)
    hold.after(7)
    with fake_runner(store, home, limits=ResultLimits(memory_bytes=2000)) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: not len(worker.shards))
        after = shard(store, record.id)
        assert (after.state, after.failures) == (ShardState.READY, 0)
        assert "No space" in (after.last_error or "")


@pytest.mark.parametrize("where", ["write_part", "footer_of"])
def test_a_shard_that_fails_each_time_fails_its_job_and_says_why(
    store: Store, home: Path, model: ModelRecord, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)

    def refuse(*_: object, **__: object) -> None:
        raise Corrupt("Nested data conversions not implemented")

    monkeypatch.setattr(finisher, where, refuse)
    monkeypatch.setattr(finisher, "BROKEN_DELAY", 0.0)
    with fake_runner(store, home) as worker:
        for failures in range(1, MAX_FAILURES):
            run_all(worker, job)
            after = shard(store, record.id)
            assert (after.state, after.failures, after.lost) == (ShardState.READY, failures, 0)
            assert state_of(store, job) is JobState.RUNNING
        run_all(worker, job)
    failed = store.jobs.by_id(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error == (
        "rows 0 to 2 failed 5 times, at last with: Nested data conversions not implemented"
    )
    assert states_of(store, job) == [ShardState.STOPPED]


def test_a_full_disk_is_never_counted(
    store: Store, home: Path, model: ModelRecord, full_disk: pytest.MonkeyPatch
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home) as worker:
        for _ in range(MAX_FAILURES + 1):
            run_all(worker, job)
        assert shard(store, record.id).failures == 0
        full_disk.undo()
        run_all(worker, job)
    assert shard(store, record.id).state is ShardState.COMMITTED


def _checkpointed(store: Store, shard_id: int) -> int:
    saved = store.leases.checkpoint_of(shard_id)
    return saved.n_rows if saved else 0

"""A runner whose engine dies, and nodes that share a long shard."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.states import ShardState
from batchgen.dataset.parts import part_key, write_part
from batchgen.jobs.creation import job_creation
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.repair.invariants import check_invariants
from batchgen.storage.storage import LocalStorage
from batchgen_workers import testing
from batchgen_workers.engine_process import supervisor as supervisor_module
from batchgen_workers.shard.finisher import footer_of
from batchgen_workers.shard.runner import ShardRunner
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.jobs import TTL, claim_first, let_expire, set_shard, shard
from tests.support.result_rows import ok_row
from tests.support.workers import (
    answer_of,
    fake_runner,
    questions,
    rows_of_parts,
    run_all,
    submit_rows,
    wait_until,
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE_AFTER_DEATH", 0.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> ModelRecord:
    return pin_model(home)


def test_a_dead_engine_is_replaced_under_the_shards_it_had(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(4))
    (record,) = store.jobs.shards(job.id)
    hold.after(3)
    with fake_runner(store, home, lease_ttl=1.0) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: _rows_done(worker) == 3)
        client = worker.supervisor._process
        assert client is not None
        client.kill()
        hold.after(0)
        wait_until(lambda: shard(store, record.id).deaths == 1)
        hold.release()
        wait_until(lambda: not len(worker.shards))
    after = shard(store, record.id)
    assert (after.state, after.attempts, after.lost) == (ShardState.COMMITTED, 1, 0)
    assert [row.attempt for row in rows_of_parts(store, home, job)] == [1, 1, 1, 1]


def test_a_row_that_ends_the_engine_becomes_an_error_row(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, [*questions(5), {"prompt": testing.EXIT}])
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    errors = [row.error and row.error.code for row in rows_of_parts(store, home, job)]
    assert errors == [None] * 5 + ["poison"]


def test_a_shard_whose_leases_were_lost_again_and_again_is_computed_apart(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(40))
    (first, second) = store.jobs.shards(job.id)
    set_shard(store, first.id, lost=5)
    apart: dict[int, bool] = {}
    with fake_runner(store, home) as worker:
        submit = worker.supervisor.submit

        def noting(rows: Any, *args: Any, **options: Any) -> bool:
            apart.update({row.request.key: options["apart"] for row in rows})
            return submit(rows, *args, **options)

        worker.supervisor.submit = noting  # type: ignore[method-assign]
        run_all(worker, job)
    assert list(apart.values()) == [True] * first.n_rows + [False] * second.n_rows
    assert [row.error for row in rows_of_parts(store, home, job)] == [None] * 40


def test_two_workers_finish_one_long_shard_together(
    store: Store, home: Path, model: ModelRecord, monkeypatch: pytest.MonkeyPatch, hold: Hold
) -> None:
    monkeypatch.setattr(job_creation, "shard_ranges", lambda n_rows, *_: [(0, n_rows)])
    job = submit_rows(store, home, model, questions(400))
    hold.after(11)
    with (
        fake_runner(store, home, lease_ttl=1.0, engine={"max_num_seqs": 2}) as owner,
        fake_runner(store, home) as idle,
    ):
        (whole,) = store.jobs.shards(job.id)
        feeding = threading.Thread(target=owner.run_shard, args=(whole.id,))
        feeding.start()
        wait_until(lambda: _rows_done(owner) > 10)
        assert store.splits.ask(model.name) == whole.id
        (held,) = owner.shards
        wait_until(lambda: held.is_to_split)
        hold.release()
        wait_until(lambda: len(store.jobs.shards(job.id)) == 2)
        begun, rest = store.jobs.shards(job.id)
        assert begun.n_rows < 200 < rest.n_rows
        idle.run_shard(rest.id)
        feeding.join()
        wait_until(lambda: not len(idle.shards) and not len(owner.shards))
    rows = rows_of_parts(store, home, job)
    assert [row.row for row in rows] == list(range(400))
    assert [row.choices[0].text for row in rows] == [answer_of(row) for row in range(400)]
    assert {one.epoch for one in store.jobs.shards(job.id)} == {1}
    assert check_invariants(store, LocalStorage(home)) == []


def test_a_checkpoint_may_hold_rows_that_a_split_gave_away(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(40))
    lease = claim_first(store, job)
    key = part_key(lease.job_public_id, lease.seq, lease.epoch, "ckpt")
    rows = [ok_row(row) for row in (0, 1, 30)]
    saved = write_part(LocalStorage(home), key, rows, footer_of(lease))
    store.leases.checkpoint(lease, saved)
    let_expire(store, store.splits.split(lease, cut=20, ttl=TTL))
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    assert [row.row for row in rows_of_parts(store, home, job)] == list(range(40))
    assert check_invariants(store, LocalStorage(home)) == []


def test_an_engine_that_is_broken_ends_the_worker_and_blames_no_row(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    failed = threading.Event()
    with fake_runner(store, home, factory=testing.BROKEN) as worker:
        worker.on_failure = failed.set
        worker.run_shard(record.id)
        assert failed.wait(60)
        assert worker.failure is not None
        assert "times in a row" in worker.failure.message
        wait_until(lambda: not len(worker.shards))
    after = shard(store, record.id)
    assert (after.state, after.lost) == (ShardState.READY, 0)
    assert "times in a row" in (after.last_error or "")


def _rows_done(worker: ShardRunner) -> int:
    return sum(held.rows_done for held in worker.shards)

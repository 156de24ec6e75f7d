from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.numerics import Numerics
from batchgen.core.rows import GenerationRequest
from batchgen.core.states import JobState, ShardState
from batchgen.dataset.parts import read_footer
from batchgen.errors import DatabaseUnavailable, UnsupportedModel
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.repair.invariants import check_invariants
from batchgen.storage.storage import LocalStorage
from batchgen_workers import retry, testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.supervisor import EngineRow
from batchgen_workers.shard import finisher, runner
from batchgen_workers.shard.claim_gate import Draining
from batchgen_workers.shard.runner import ShardRunner
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.jobs import let_expire, set_job, shard, states_of
from tests.support.permissions import writable
from tests.support.workers import (
    answer_of,
    expected_kv,
    fake_runner,
    files_below,
    leased,
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


def test_every_row_of_a_job_gets_its_answer(store: Store, home: Path, model: ModelRecord) -> None:
    job = submit_rows(store, home, model, questions(100))
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    rows = rows_of_parts(store, home, job)
    assert [row.row for row in rows] == list(range(100))
    assert [row.choices[0].text for row in rows] == [answer_of(row) for row in range(100)]
    assert {row.attempt for row in rows} == {1}
    assert set(states_of(store, job)) == {ShardState.COMMITTED}
    assert sound(store, home)


def test_what_the_rows_did_to_the_pool_is_counted(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, [*questions(40), b"{broken", {"prompt": ""}])
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    progress = store.jobs.progress(job.id)
    assert (progress.rows_ok, progress.rows_err) == (40, 2)
    assert progress.finish_reasons == FinishReasons(length=40)  # as the fake engine ends them all
    assert progress.kv == expected_kv(40)
    assert progress.cached_tokens == 40 * testing.CACHED_TOKENS
    parts = [segment.part for segment in store.finalization.segments(job.id)]
    assert len(parts) == 2
    for part in parts:
        assert part is not None
        footer = read_footer(LocalStorage(home), part.path)
        assert footer.kv == part.kv == expected_kv(part.n_ok)
        assert footer.numerics == (Numerics(device="cpu", dtype="float32", kernels="reference"),)


def test_the_last_rows_go_to_the_engine_longest_first(
    store: Store, home: Path, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = questions(12)
    for at, each in enumerate(rows):
        each["max_tokens"] = at + 1
    job = submit_rows(store, home, model, rows, tenant_id="acme")
    asked: list[GenerationRequest] = []
    with fake_runner(store, home, engine={"max_num_seqs": 2}) as worker:
        submit = worker.supervisor.submit

        def spy(rows: list[EngineRow], *args: Any, **kwargs: Any) -> bool:
            asked.extend(row.request for row in rows)
            return submit(rows, *args, **kwargs)

        monkeypatch.setattr(worker.supervisor, "submit", spy)
        run_all(worker, job)
    assert [each.params.max_tokens for each in asked] == [*range(1, 9), 12, 11, 10, 9]
    assert {(each.job, each.cache_salt) for each in asked} == {(job.public_id, "acme")}
    assert [row.row for row in rows_of_parts(store, home, job)] == list(range(12))


def test_a_bad_line_is_an_error_row_and_its_neighbours_are_answered(
    store: Store, home: Path, model: ModelRecord
) -> None:
    lines: list[dict[str, Any] | bytes] = [*questions(3), b"{broken", {"prompt": ""}]
    job = submit_rows(store, home, model, lines)
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    codes = [row.error and row.error.code for row in rows_of_parts(store, home, job)]
    assert codes[:4] == [None, None, None, "invalid_json"]
    assert codes[4] is not None


def test_a_message_for_a_shard_that_is_not_free_is_dropped(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home) as worker:
        worker.run_shard(record.id)
        worker.run_shard(record.id)
        worker.run_shard(987_654)
        wait_until(lambda: not len(worker.shards))
        worker.run_shard(record.id)
        assert not len(worker.shards)
    assert shard(store, record.id).attempts == 1


def test_the_next_shard_is_fed_while_the_last_rows_of_one_are_computed(
    store: Store, home: Path, model: ModelRecord
) -> None:
    rows = questions(33)
    rows[0]["max_tokens"] = LONG
    job = submit_rows(store, home, model, rows)
    first, second = store.jobs.shards(job.id)
    with fake_runner(store, home, factory=testing.SLOW) as worker:
        worker.run_shard(first.id)
        worker.run_shard(second.id)
        wait_until(lambda: shard(store, second.id).state is ShardState.COMMITTED)
        assert shard(store, first.id).state is ShardState.LEASED


def test_a_checkpoint_is_made_and_only_the_rest_is_computed_again(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    rows = questions(8)
    rows[7]["max_tokens"] = 400
    job = submit_rows(store, home, model, rows)
    (record,) = store.jobs.shards(job.id)
    hold.after(7)
    with fake_runner(store, home, checkpoint_interval=0.05) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: _checkpointed(store, record.id) == 7)
        worker.drain(0.0)
    hold.release()
    assert shard(store, record.id).state is ShardState.READY
    assert len(files_below(home / "parts")) == 1
    with fake_runner(store, home) as worker:
        run_all(worker, job)
        stats = worker.stats
    assert stats is None or stats.generated_tokens == 400
    # seven rows as the checkpoint has them, one as computed here: each counts once
    assert store.jobs.progress(job.id).kv == expected_kv(8)
    answered = rows_of_parts(store, home, job)
    assert [row.attempt for row in answered] == [1] * 7 + [2]
    assert [row.choices[0].text for row in answered[:7]] == [answer_of(row) for row in range(7)]
    assert answered[7].choices[0].text == answer_of(7, tokens=400)
    assert files_below(home / "parts") == [_only_part(store, job.id).removeprefix("parts/")]
    assert sound(store, home)


def test_a_damaged_checkpoint_costs_time_and_no_row(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(4))
    (record,) = store.jobs.shards(job.id)
    hold.after(3)
    with fake_runner(store, home) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: _rows_done(worker) == 3)
        worker.drain(0.0)
    hold.release()
    (name,) = files_below(home / "parts")
    writable(home / "parts" / name).write_bytes(b"PAR1 no more")
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    assert [row.attempt for row in rows_of_parts(store, home, job)] == [2, 2, 2, 2]
    assert store.jobs.progress(job.id).kv == expected_kv(4)
    assert sound(store, home)


def test_draining_lets_rows_end_that_the_engine_has(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(4))
    (record,) = store.jobs.shards(job.id)
    hold.after(0)
    with fake_runner(store, home) as worker:
        worker.run_shard(record.id)
        (held,) = worker.shards
        draining = threading.Thread(target=worker.drain, args=(60.0,))
        draining.start()
        wait_until(lambda: not held.wants_rows)
        hold.release()
        draining.join()
        with pytest.raises(Draining):
            worker.run_shard(record.id)
    assert shard(store, record.id).state is ShardState.COMMITTED


def test_draining_feeds_no_more_rows(store: Store, home: Path, model: ModelRecord) -> None:
    # shards of 40 rows, of which the engine takes 32: the feeder of the first waits for room
    job = submit_rows(store, home, model, questions(64 * 40, max_tokens=LONG))
    first, second = store.jobs.shards(job.id)[:2]
    with fake_runner(store, home, factory=testing.SLOW, engine={"max_num_seqs": 2}) as worker:
        feeder = threading.Thread(target=worker.run_shard, args=(first.id,))
        feeder.start()
        wait_until(lambda: worker.supervisor.outstanding == 32)
        at_the_gate = threading.Thread(target=_refused, args=(worker, second.id))
        at_the_gate.start()
        worker.drain(0.0)
        feeder.join()
        at_the_gate.join()
    assert leased(store) == 0
    assert set(states_of(store, job)) == {ShardState.READY}


def test_a_shard_that_would_only_wait_is_left_to_another_worker(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(64, max_tokens=LONG))
    first, second = store.jobs.shards(job.id)
    slow: dict[str, Any] = {"factory": testing.SLOW, "engine": {"max_num_seqs": 32}}
    with fake_runner(store, home, **slow) as full, fake_runner(store, home, **slow) as idle:
        full.run_shard(first.id)
        at_the_gate = threading.Thread(target=_refused, args=(full, second.id))
        at_the_gate.start()
        idle.run_shard(second.id)
        assert (len(full.shards), len(idle.shards)) == (1, 1)
        full.drain(0.0)
        at_the_gate.join()


def test_a_paused_job_is_saved_and_released(store: Store, home: Path, model: ModelRecord) -> None:
    rows = [*questions(3), {"prompt": "long", "max_tokens": LONG}]
    job = submit_rows(store, home, model, rows)
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home, factory=testing.SLOW, lease_ttl=1.0) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: _rows_done(worker) == 3)
        store.jobs.pause(job.id)
        wait_until(lambda: not len(worker.shards))
        wait_until(lambda: worker.supervisor.outstanding == 0)
    assert shard(store, record.id).state is ShardState.READY
    assert _checkpointed(store, record.id) == 3
    assert shard(store, record.id).last_error is None


@pytest.mark.parametrize(
    ("stop", "code"), [("cancel", "batch_cancelled"), ("expire", "batch_expired")]
)
def test_a_stopped_job_keeps_what_is_finished_and_says_why_the_rest_is_not(
    store: Store, home: Path, model: ModelRecord, stop: str, code: str
) -> None:
    rows: list[dict[str, Any] | bytes] = [
        *questions(3),
        {"id": "long", "prompt": "long", "max_tokens": LONG, "topic": "kept"},
        b"{broken",
    ]
    job = submit_rows(store, home, model, rows)
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home, factory=testing.SLOW, lease_ttl=1.0) as worker:
        worker.run_shard(record.id)
        wait_until(lambda: _rows_done(worker) == 4)
        if stop == "expire":
            set_job(store, job.id, deadline=1.0)
            store.dispatch.expire_due()
        else:
            store.jobs.cancel(job.id)
        wait_until(lambda: not len(worker.shards))
        wait_until(lambda: worker.supervisor.outstanding == 0)
    answered = rows_of_parts(store, home, job)
    codes = [row.error and row.error.code for row in answered]
    assert codes == [None, None, None, code, "invalid_json"]
    assert (answered[3].custom_id, answered[3].extra) == ("long", '{"topic":"kept"}')
    assert shard(store, record.id).state is ShardState.COMMITTED
    assert sound(store, home)


def test_a_fenced_shard_leaves_nothing(
    store: Store, home: Path, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    hold.after(2)
    with fake_runner(store, home) as worker:
        worker.run_shard(record.id)
        (held,) = worker.shards
        let_expire(store, held.lease)
        other = store.leases.claim(record.id, owner="other/2", ttl=60.0)
        assert other is not None
        hold.release()
        wait_until(lambda: not len(worker.shards))
    assert shard(store, record.id).epoch == other.epoch
    assert shard(store, record.id).state is ShardState.LEASED
    assert files_below(home / "parts") == []


def test_a_changed_input_fails_the_job(store: Store, home: Path, model: ModelRecord) -> None:
    job = submit_rows(store, home, model, questions(3))
    (home / "inputs" / job.input_sha256).unlink()
    with fake_runner(store, home) as worker:
        run_all(worker, job)
    record = store.jobs.by_id(job.id)
    assert record.state is JobState.FAILED
    assert "missing" in (record.error or "")
    assert states_of(store, job) == [ShardState.STOPPED]


def test_a_full_disk_gives_the_shard_back_and_claims_wait(
    store: Store, home: Path, model: ModelRecord, disk_full: Callable[[], Any]
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home) as worker:
        with disk_full():
            worker.run_shard(record.id)
            wait_until(lambda: not len(worker.shards))
        after = shard(store, record.id)
        assert (after.state, after.lost, after.deaths) == (ShardState.READY, 0, 0)
        assert "No space" in (after.last_error or "")
        assert files_below(home / "parts") == []
        run_all(worker, job)
    assert shard(store, record.id).state is ShardState.COMMITTED


def test_a_model_that_is_not_the_jobs_computes_nothing(
    store: Store, home: Path, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    with fake_runner(store, home, start=False) as worker:
        worker.model = _other_version(model)
        worker.start(CancelToken())
        worker.run_shard(record.id)
    after = shard(store, record.id)
    assert after.state is ShardState.READY
    assert "not the one the job was made for" in (after.last_error or "")


def test_a_worker_says_what_it_is_and_signs_off(
    store: Store, home: Path, model: ModelRecord
) -> None:
    with fake_runner(store, home, heartbeat_interval=0.05) as worker:
        (record,) = store.workers.list(alive_within=60.0)
        assert (record.id, record.model, record.slots) == (worker.id, "tiny", 4)
        assert record.stats["kv_blocks_used"] == 0
        assert record.stats["kernels"] == "reference"
        assert record.stats["kernels_reason"] == "slower: nothing computes here"
        job = submit_rows(store, home, model, questions(8))
        run_all(worker, job)
        wait_until(lambda: store.workers.list(alive_within=60.0)[0].stats["generated_tokens"] == 32)
    assert store.workers.list(alive_within=60.0) == []


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_own(
    store: Store, home: Path, model: ModelRecord
) -> None:
    with (
        fake_runner(store, home, factory=testing.REFUSING, start=False) as worker,
        pytest.raises(UnsupportedModel),
    ):
        worker.start(CancelToken())
    assert store.workers.list(alive_within=60.0) == []


def test_an_absent_database_costs_time_and_no_row(
    store: Store, home: Path, model: ModelRecord, absent_database: Any, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(3))
    (record,) = store.jobs.shards(job.id)
    hold.after(2)
    with fake_runner(store, home) as worker:
        worker.run_shard(record.id)
        with absent_database("commit") as attempts:
            hold.release()
            wait_until(lambda: len(attempts) >= 2)
        wait_until(lambda: not len(worker.shards))
    assert shard(store, record.id).state is ShardState.COMMITTED
    assert {row.attempt for row in rows_of_parts(store, home, job)} == {1}


@pytest.fixture
def absent_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractContextManager[list[str]]]:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)

    @contextmanager
    def absent(method: str) -> Any:
        attempts: list[str] = []

        def refuse(*_: object, **__: object) -> None:
            attempts.append(method)
            raise DatabaseUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(store.leases, method, refuse)
            yield attempts

    return absent


@pytest.fixture
def disk_full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    monkeypatch.setattr(runner, "DISK_PAUSE", 0.05)

    @contextmanager
    def full() -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(finisher, "write_part", refuse)
            yield

    return full


def _checkpointed(store: Store, shard_id: int) -> int:
    saved = store.leases.checkpoint_of(shard_id)
    return saved.n_rows if saved else 0


def _rows_done(worker: ShardRunner) -> int:
    return sum(held.rows_done for held in worker.shards)


def _refused(worker: ShardRunner, shard_id: int) -> None:
    with pytest.raises(Draining):
        worker.run_shard(shard_id)


def _only_part(store: Store, job_id: int) -> str:
    (segment,) = store.finalization.segments(job_id)
    assert segment.part is not None
    return segment.part.path


def _other_version(model: ModelRecord) -> ModelRecord:
    return msgspec.structs.replace(model, sha256="f" * 64)

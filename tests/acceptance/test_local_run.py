"""`run_local` as a process of its own, with the real engine on a tiny random model."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from batchgen.core.states import JobState, ShardState
from batchgen.database.database import Database
from batchgen.errors import HomeLocked, JobNotFound, ModelError
from batchgen.jobs.creation.sharding import MIN_SHARD_ROWS
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.settings import Settings
from batchgen_workers import testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.service.finaliser import Finaliser
from batchgen_workers.service.home_lock import locked_home
from batchgen_workers.service.local import LocalProgress, run_local
from tests.support.holding import Hold
from tests.support.homes import pin_model
from tests.support.processes import (
    Processes,
    dataset_rows,
    half_done,
    processes,
    real_model,
)
from tests.support.workers import answer_of, is_alive, questions, submit_rows, wait_until

ROWS = 200
NEVER = 3600.0  # seconds; a lease that does not run out by itself


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(
        home=home,
        lease_ttl=NEVER,
        checkpoint_interval=0.2,
        engine={"max_num_seqs": 8, "threads": 1, "kv_memory": "32M"},  # type: ignore[arg-type]
    )


@pytest.fixture
def store(home: Path, sqlite_template: Path) -> Iterator[Store]:
    home.mkdir()
    (home / "batchgen.db").write_bytes(sqlite_template.read_bytes())
    store = Store(Database(f"sqlite:///{home / 'batchgen.db'}"))
    yield store
    store.close()


@pytest.fixture
def model(home: Path, store: Store) -> ModelRecord:
    return pin_model(home)


@pytest.fixture
def starter(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    with processes(settings, tmp_path) as started:
        yield started


def long_job(store: Store, home: Path, model: ModelRecord) -> JobRecord:
    """Submit rows that are to be interrupted half-way."""
    rows = questions(ROWS, max_tokens=60, ignore_eos=True)
    return submit_rows(store, home, model, rows, start=False)


def test_a_job_is_computed_by_the_real_engine(store: Store, home: Path, settings: Settings) -> None:
    job = submit_rows(store, home, real_model(home), questions(40, max_tokens=8), start=False)
    seen: list[LocalProgress] = []
    run = run_local(settings, job.public_id, on_progress=seen.append)
    assert run.job.state is JobState.COMPLETED
    assert not run.interrupted
    rows = dataset_rows(store, home, job)
    assert [row.custom_id for row in rows] == [f"q{row}" for row in range(40)]
    assert all(row.usage is not None and row.usage.prompt_tokens > 0 for row in rows)
    assert all(row.seed is not None for row in rows)
    assert seen[-1].progress.rows_ok == 40
    assert seen[-1].progress.kv.rows == 40
    assert 0.0 < seen[-1].progress.kv.utilisation <= 1.0
    assert seen[-1].engine is not None
    assert seen[-1].engine.device == "cpu"
    assert run.stats is not None
    assert run.stats.busy_seconds > 0
    assert run.first_row_at is not None
    assert store.workers.list(alive_within=60.0) == []


def test_every_returned_sequence_of_a_row_is_in_the_dataset(
    store: Store, home: Path, settings: Settings
) -> None:
    asked = questions(9, max_tokens=8)
    asked[0] |= {"num_beams": 4, "n": 3}
    asked[1] |= {"n": 5, "temperature": 1.0}
    asked[2] |= {"logprobs": True, "top_logprobs": 2, "prompt_logprobs": 0}
    asked[3] |= {"regex": "[a-f]{3}", "ignore_eos": True}
    asked[4] |= {"num_beams": 3, "length_penalty": -1, "return_token_ids": True}
    job = submit_rows(store, home, real_model(home), asked, start=False)
    assert run_local(settings, job.public_id).job.state is JobState.COMPLETED
    rows = dataset_rows(store, home, job)
    assert [len(row.choices) for row in rows] == [3, 5, 1, 1, 1, 1, 1, 1, 1]
    scores = [choice.score or 0.0 for choice in rows[0].choices]
    assert scores == sorted(scores, reverse=True) and len({c.text for c in rows[0].choices}) == 3
    assert [choice.index for choice in rows[1].choices] == list(range(5))
    judged = msgspec.json.decode(rows[2].choices[0].logprobs or "")
    usage = rows[2].usage
    assert usage is not None
    assert len(judged["content"]) == usage.completion_tokens
    assert len(judged["prompt"]) == usage.prompt_tokens
    assert sum(entry["logprob"] for entry in judged["content"]) == pytest.approx(
        rows[2].choices[0].score, abs=1e-4
    )
    assert re.fullmatch("[a-f]{3}", rows[3].choices[0].text)
    assert len(rows[4].choices[0].tokens or []) > 0


def test_killed_half_way_and_run_again_it_completes_with_every_row_once(
    store: Store, home: Path, settings: Settings, starter: Processes
) -> None:
    job = long_job(store, home, real_model(home))
    # the first shard is committed, and nothing of the second, at whose ninth answer it sleeps
    first = starter.local_run(job, failpoint="row.answered=pause:3600@41")
    wait_until(lambda: store.jobs.progress(job.id).rows_ok == MIN_SHARD_ROWS)
    children = first.children()
    first.kill()
    assert children
    wait_until(lambda: not any(is_alive(child) for child in children))
    # The leases would last for an hour: a home that is locked has no other worker to wait for.
    second = starter.local_run(job)
    assert second.wait() == 0
    rows = dataset_rows(store, home, job)
    assert {row.attempt for row in rows} == {1, 2}
    assert {row.usage.completion_tokens for row in rows if row.usage} == {60}


def test_interrupted_it_saves_what_is_finished_and_goes_on_later(
    store: Store, home: Path, settings: Settings, starter: Processes, model: ModelRecord, hold: Hold
) -> None:
    job = long_job(store, home, model)
    hold.after(20)
    first = starter.local_run(job, testing.FAST)
    wait_until(half_done(store, job, rows=20))
    first.send(signal.SIGINT)
    assert first.wait() == -signal.SIGINT  # KeyboardInterrupt, as Python reports it
    assert store.jobs.count_shards(job.id)[ShardState.LEASED] == 0
    assert store.jobs.progress(job.id).rows_done >= 20
    hold.release()
    run = run_local(settings, job.public_id, factory=testing.FAST)
    assert run.job.state is JobState.COMPLETED
    rows = dataset_rows(store, home, job)
    assert sum(row.attempt == 1 for row in rows) >= 20
    assert [row.choices[0].text for row in rows] == [
        answer_of(row, tokens=60) for row in range(ROWS)
    ]


def test_a_dataset_half_written_is_written_again(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(40), start=False)
    with _finaliser_that_is_killed():
        run_local(settings, job.public_id, factory=testing.FAST, stop=_soon(store, job))
    assert store.jobs.by_id(job.id).state is JobState.FINALIZING
    # no engine is started: there is no row left
    run = run_local(settings, job.public_id, factory=testing.REFUSING)
    assert run.job.state is JobState.COMPLETED
    assert run.stats is None
    assert len(dataset_rows(store, home, job)) == 40


def test_an_ended_job_is_returned_at_once(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(4), start=False)
    run_local(settings, job.public_id, factory=testing.FAST)
    again = run_local(settings, job.public_id, factory=testing.REFUSING)
    assert again.job.state is JobState.COMPLETED


def test_a_paused_job_goes_on_when_it_is_run(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(4))
    store.jobs.pause(job.id)
    run = run_local(settings, job.public_id, factory=testing.FAST)
    assert run.job.state is JobState.COMPLETED


def test_a_cancelled_job_ends_complete(
    store: Store, home: Path, settings: Settings, model: ModelRecord, hold: Hold
) -> None:
    job = submit_rows(store, home, model, questions(4), start=False)
    hold.after(3)

    def cancel(progress: LocalProgress) -> None:
        if progress.progress.rows_done >= 3 and progress.job.state is JobState.RUNNING:
            store.jobs.cancel(job.id)

    quick = settings.model_copy(update={"lease_ttl": 2.0})
    run = run_local(quick, job.public_id, factory=testing.FAST, on_progress=cancel)
    assert run.job.state is JobState.CANCELLED
    progress = store.jobs.progress(job.id)
    assert (progress.rows_ok, progress.rows_err) == (3, 1)


def test_two_runs_of_one_home_are_refused(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(4), start=False)
    with locked_home(home), pytest.raises(HomeLocked):
        run_local(settings, job.public_id, factory=testing.FAST)


def test_an_engine_that_does_not_start_leaves_the_job_as_it_was(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    job = submit_rows(store, home, model, questions(4), start=False)
    with pytest.raises(ModelError, match="bypasses"):
        run_local(settings, job.public_id, factory=testing.REFUSING)
    assert store.jobs.by_id(job.id).state is JobState.QUEUED
    assert run_local(settings, job.public_id, factory=testing.FAST).job.state.ended


def test_a_changed_model_is_refused(
    store: Store, home: Path, settings: Settings, model: ModelRecord
) -> None:
    rows = questions(4)
    job = submit_rows(store, home, _other(model), rows, start=False)
    with pytest.raises(ModelError, match="changed"):
        run_local(settings, job.public_id, factory=testing.FAST)


def test_an_unknown_job_is_named(settings: Settings, store: Store) -> None:
    with pytest.raises(JobNotFound):
        run_local(settings, "f" * 32, factory=testing.FAST)


def _other(model: ModelRecord) -> ModelRecord:
    return msgspec.structs.replace(model, sha256="f" * 64)


def _soon(store: Store, job: JobRecord) -> CancelToken:
    stop = CancelToken()

    def watch() -> None:
        wait_until(lambda: store.jobs.by_id(job.id).state is JobState.FINALIZING)
        stop.cancel()

    threading.Thread(target=watch).start()
    return stop


@contextmanager
def _finaliser_that_is_killed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finaliser, "run_once", _only_claim)
        yield


def _only_claim(finaliser: Finaliser) -> int:
    for job_id in finaliser.store.finalization.finalizable():
        finaliser.store.finalization.claim(job_id, owner="dead/1", ttl=NEVER)
    return 0

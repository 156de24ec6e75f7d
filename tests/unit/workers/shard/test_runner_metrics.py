from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import Fenced
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.tracing import Stage
from batchgen_workers.shard import finisher
from batchgen_workers.testing import NAN
from tests.support.homes import pin_model
from tests.support.metrics import Changes
from tests.support.workers import fake_runner, questions, run_all, submit_rows, wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> ModelRecord:
    return pin_model(home)


def test_what_leaves_a_worker_is_counted_once(store: Store, home: Path, model: ModelRecord) -> None:
    job = submit_rows(store, home, model, [*questions(40), b"{broken", {"prompt": NAN}])
    changes = Changes(Process.WORKER)
    with fake_runner(store, home) as worker:
        run_all(worker, job)
        wait_until(lambda: worker.reading().stats is not None)
        assert worker.reading().shards == 0
    progress = store.jobs.progress(job.id)
    found = changes()
    times = {name: found.pop(name) for name in list(found) if name.endswith("_sum")}
    assert found == {
        'batchgen_requests_total{outcome="length"}': 40,
        'batchgen_requests_total{outcome="error"}': 1,  # the other was never sent to the engine
        'batchgen_tokens_total{kind="prompt"}': progress.prompt_tokens,
        'batchgen_tokens_total{kind="completion"}': progress.completion_tokens,
        'batchgen_tokens_total{kind="cached"}': progress.cached_tokens,
        "batchgen_request_latency_seconds_count": 41,
        "batchgen_time_to_first_token_seconds_count": 40,
        'batchgen_parquet_rows_written_total{file="part"}': 42,
        'batchgen_shards_finished_total{ending="complete"}': 2,
    }
    assert all(seconds >= 0 for seconds in times.values())


def test_a_shard_that_is_lost_is_counted_as_lost_and_traced(
    store: Store, home: Path, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[Stage] = []
    monkeypatch.setattr(finisher, "record_stage", stages.append)
    job = submit_rows(store, home, model, questions(8))
    changes = Changes(Process.WORKER)
    with fake_runner(store, home) as worker, monkeypatch.context() as lost:
        lost.setattr(store.leases, "commit", _fenced)
        worker.run_shard(store.jobs.shards(job.id)[0].id)
        worker.drain(60.0)
    assert changes()['batchgen_shards_finished_total{ending="fenced"}'] == 1
    (stage,) = stages
    assert (stage.job, stage.name) == (job.public_id, "shard")
    assert stage.began <= stage.ended
    assert stage.attributes["ending"] == "fenced" and stage.attributes["rows"] == 8
    assert str(stage.attributes["worker"]).startswith(worker.id)


def _fenced(*_: object) -> None:
    raise Fenced

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchgen.core.row_lengths import RowLengths
from batchgen.database.database import now_db
from batchgen.database.tables import workers
from batchgen.jobs.creation.estimates import (
    ANSWER_TOKENS,
    PROMPT_WEIGHT,
    RATES,
    Estimate,
    default_rate,
    estimate,
    measured_rate,
)
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.jobs.store import Store
from tests.support.jobs import MODEL, commit_all, new_job, running_job
from tests.support.views import a_worker

SHORT = RowLengths(prompt_tokens=40.0, answer_tokens=10.0)
BUSY = {"busy_seconds": 100.0, "prompt_tokens": 4000, "generated_tokens": 9000}


def estimated(store: Store, lengths: RowLengths | None = SHORT) -> Estimate:
    with store.database.begin() as connection:
        return estimate(connection, MODEL, lengths)


def beat(store: Store, number: int = 1, **changes: Any) -> WorkerRecord:
    worker = replace(a_worker(), id=f"w{number}", model=MODEL, **changes)
    store.workers.heartbeat(worker)
    return worker


def test_without_workers_or_history_the_bound_and_a_slow_device_count(store: Store) -> None:
    tokens = 40.0 * PROMPT_WEIGHT + 10.0
    found = estimated(store)
    assert (found.row_seconds, found.workers) == (tokens / RATES["cpu"], 0)


def test_of_rows_that_nobody_looked_at_nothing_is_said(store: Store) -> None:
    beat(store)
    assert estimated(store, None) == Estimate(row_seconds=0.0, workers=1)


def test_workers_say_how_fast_they_are(store: Store) -> None:
    beat(store, 1, stats=BUSY)
    beat(store, 2, stats={**BUSY, "busy_seconds": 300.0})
    beat(store, 3, stats={"busy_seconds": 1.0, "generated_tokens": 1_000_000})
    rate = 2 * (4000 * PROMPT_WEIGHT + 9000) / 400.0
    found = estimated(store)
    assert found.workers == 3
    assert found.row_seconds == pytest.approx((40.0 * PROMPT_WEIGHT + 10.0) / rate)


def test_a_silent_worker_has_reported_but_does_not_share(store: Store) -> None:
    beat(store, stats=BUSY)
    with store.database.begin() as connection:
        connection.execute(workers.update().values(heartbeat_at=now_db() - 3600.0))
    assert estimated(store).workers == 0
    assert estimated(store).row_seconds == pytest.approx(0.2)


def test_the_device_counts_until_a_worker_is_measured(store: Store) -> None:
    beat(store, device="cuda:1", stats={})
    assert estimated(store).row_seconds == pytest.approx(20.0 / RATES["cuda"])


def test_answers_without_a_bound_are_as_long_as_those_before(store: Store) -> None:
    unbounded = RowLengths(prompt_tokens=0.0)
    assert estimated(store, unbounded).row_seconds == ANSWER_TOKENS / RATES["cpu"]
    commit_all(store, running_job(store, 64))
    # three tokens a row, says `part_of`
    assert estimated(store, unbounded).row_seconds == 3.0 / RATES["cpu"]
    assert estimated(store).row_seconds == pytest.approx(20.0 / RATES["cpu"])


def test_another_model_says_nothing_of_this_one(store: Store) -> None:
    commit_all(store, running_job(store, 64, model="other"))
    store.workers.heartbeat(replace(a_worker(), model="other", stats=BUSY))
    assert estimated(store, RowLengths()) == Estimate(
        row_seconds=ANSWER_TOKENS / RATES["cpu"], workers=0, answer_tokens=ANSWER_TOKENS
    )


@pytest.mark.parametrize("stats", [[], [{}], [{"busy_seconds": 50.0}]])
def test_who_has_not_worked_has_no_rate(stats: list[dict[str, Any]]) -> None:
    assert measured_rate(stats) is None


def test_a_device_that_nobody_knows_is_slow() -> None:
    assert default_rate("xpu:0") == RATES["cpu"] < default_rate("cuda:0")


def test_the_shards_of_a_job_follow(store: Store) -> None:
    slow = RowLengths(prompt_tokens=1000.0, answer_tokens=500.0)
    job = store.jobs.submit(new_job(100_000, lengths=slow))
    # 750 weighted tokens at 250 a second: 40 rows in two minutes
    assert {shard.n_rows for shard in store.jobs.shards(job.id)} == {40}

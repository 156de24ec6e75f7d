"""Faults 9, 10 and 47 to 51: rows that take the engine with them, and engines that run out."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest

from batchgen.core.rows import ResultRow
from batchgen.jobs.records.job_records import JobRecord
from batchgen_workers import testing
from tests.support.cluster import Cluster
from tests.support.workers import answer_of, questions, wait_until

ROWS = 100
DEADLY = (testing.SEGV, testing.EXIT, testing.RAISE)


def with_magic(n_rows: int, magic: dict[int, str], **fields: Any) -> list[dict[str, Any]]:
    """Return questions of which some do something to the engine."""
    rows = questions(n_rows, **fields)
    for row, word in magic.items():
        rows[row]["prompt"] += f" {word}"
    return rows


def names(*rows: int) -> list[str]:
    """Return the custom ids of rows of `questions`."""
    return [f"q{row}" for row in rows]


def check_others(rows: list[ResultRow], poison: set[int]) -> None:
    """Fail unless every row but the poisonous has its own answer."""
    wrong = [
        row.row
        for row in rows
        if row.row not in poison and row.choices[0].text != answer_of(row.row)
    ]
    assert wrong == []


def deaths(cluster: Cluster) -> int:
    """Return how often an engine died under the workers of a cluster."""
    logs = [member.log.read_text(encoding="utf-8") for member in cluster.members]
    return sum(log.count('"event": "engine died"') for log in logs)


@pytest.mark.fault(9, "engine child: segmentation fault, exit, exception")
@pytest.mark.parametrize("magic", DEADLY)
def test_09_a_row_that_ends_the_engine_costs_itself_only(cluster: Cluster, magic: str) -> None:
    cluster.coordinator()
    worker = cluster.worker()
    cluster.hurt()
    rows = cluster.drain(cluster.submit(with_magic(ROWS, {37: magic})), errors=names(37))
    assert worker.is_alive
    assert rows[37].error is not None
    assert rows[37].error.code == "poison"
    check_others(rows, {37})


@pytest.mark.fault(9, "kill -9 of the engine child")
def test_09_a_killed_engine_is_replaced_and_nobody_notices(cluster: Cluster) -> None:
    cluster.coordinator()
    cluster.brake.after(10)
    worker = cluster.worker()
    job = cluster.submit()
    cluster.await_done(job, 10)
    (engine,) = worker.children()
    os.kill(engine, signal.SIGKILL)
    cluster.hurt()
    cluster.brake.release()
    rows = cluster.drain(job)
    assert worker.is_alive
    assert {row.attempt for row in rows} == {1}  # no lease was lost, no shard given back


@pytest.mark.fault(10, "engine child: hangs")
def test_10_a_row_that_hangs_the_engine_costs_itself_only(cluster: Cluster) -> None:
    cluster.coordinator()
    cluster.worker(stall_timeout=0.5)
    cluster.hurt()
    rows = cluster.drain(cluster.submit(with_magic(16, {5: testing.HANG})), errors=names(5))
    check_others(rows, {5})


@pytest.mark.fault(47, "one row of a thousand ends the engine")
def test_47_one_poisonous_row_of_a_thousand(cluster: Cluster) -> None:
    cluster.coordinator()
    cluster.worker()
    cluster.hurt()
    job = cluster.submit(with_magic(1000, {777: testing.EXIT}))
    rows = cluster.drain(job, errors=names(777))
    check_others(rows, {777})
    longest = max(shard.n_rows for shard in cluster.store.jobs.shards(job.id))
    assert deaths(cluster) <= 2 + math.ceil(math.log2(longest))


@pytest.mark.fault(48, "five poisonous rows in one shard")
def test_48_five_poisonous_rows_are_found_one_by_one(cluster: Cluster) -> None:
    poison = {3, 4, 11, 19, 30}
    cluster.coordinator()
    cluster.worker()
    cluster.hurt()
    job = cluster.submit(with_magic(32, dict.fromkeys(poison, testing.EXIT)))
    assert len(cluster.store.jobs.shards(job.id)) == 1
    check_others(cluster.drain(job, errors=names(*poison)), poison)


@pytest.mark.long
@pytest.mark.fault(48, "every row is poisonous")
def test_48_a_job_of_poison_comes_to_an_end(cluster: Cluster) -> None:
    cluster.coordinator()
    worker = cluster.worker()
    cluster.hurt()
    everyone = dict.fromkeys(range(8), testing.EXIT)
    cluster.drain(cluster.submit(with_magic(8, everyone)), errors=names(*everyone))
    assert worker.is_alive


@pytest.mark.fault(49, "the engine runs out of memory")
def test_49_a_batch_that_does_not_fit_is_made_smaller(cluster: Cluster) -> None:
    cluster.coordinator()
    worker = cluster.worker()
    cluster.hurt()
    greedy = dict.fromkeys(range(ROWS), f"{testing.OOM}4")  # more than four at once are too many
    job = cluster.submit(with_magic(ROWS, greedy))
    cluster.drain(job)
    assert worker.is_alive
    shards = cluster.store.jobs.shards(job.id)
    assert {(shard.lost, shard.deaths) for shard in shards} == {(0, 0)}


@pytest.mark.fault(51, "NaN logits")
def test_51_numbers_that_are_none_cost_their_row_only(cluster: Cluster) -> None:
    cluster.coordinator()
    worker = cluster.worker()
    cluster.hurt()
    rows = cluster.drain(cluster.submit(with_magic(ROWS, {8: testing.NAN})), errors=names(8))
    assert worker.is_alive
    check_others(rows, {8})


@pytest.mark.fault(47, "an engine that cannot run makes no row an error")
def test_47_a_broken_engine_is_no_fault_of_the_rows(cluster: Cluster) -> None:
    cluster.coordinator()
    job: JobRecord = cluster.submit(20)
    broken = cluster.worker("batchgen_workers.testing:broken_engine")
    wait_until(lambda: not broken.is_alive)
    cluster.hurt()
    assert cluster.done(job) == 0
    cluster.worker()
    cluster.drain(job)

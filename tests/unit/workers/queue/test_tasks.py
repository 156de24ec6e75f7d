from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject

from batchgen.errors import DatabaseUnavailable
from batchgen.settings import Settings
from batchgen_workers.queue.app import create_app
from batchgen_workers.queue.envelope import RUN_SHARD
from batchgen_workers.queue.tasks import register
from batchgen_workers.shard.claim_gate import Draining
from tests.support.logs import logging_to_stderr


class ShardRunner:
    """Notes the shards it is asked for, and may refuse them."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.error: Exception | None = None

    def run_shard(self, shard_id: int) -> None:
        self.asked.append(shard_id)
        if self.error is not None:
            raise self.error


@pytest.fixture
def runner() -> ShardRunner:
    return ShardRunner()


@pytest.fixture
def task(runner: ShardRunner) -> Any:
    app: Celery = create_app(Settings(broker_url="redis://localhost"), model="tiny")
    register(app, runner.run_shard)
    return app.tasks[RUN_SHARD]


def test_a_shard_id_reaches_the_node(task: Any, runner: ShardRunner) -> None:
    task(shard=17)
    assert runner.asked == [17]


@pytest.mark.parametrize("shard", ["17", None, 0, -1, 1.5, True, 2**63, {"__type__": "x"}, [1]])
def test_what_is_no_shard_id_does_nothing(task: Any, runner: ShardRunner, shard: object) -> None:
    task(shard=shard)
    assert runner.asked == []


def test_a_draining_worker_gives_the_message_back(task: Any, runner: ShardRunner) -> None:
    runner.error = Draining()
    with pytest.raises(Reject) as rejected:
        task(shard=1)
    assert vars(rejected.value)["requeue"]


def test_an_absent_database_drops_the_message(task: Any, runner: ShardRunner) -> None:
    runner.error = DatabaseUnavailable()
    task(shard=1)
    assert runner.asked == [1]


def test_a_mistake_of_ours_is_logged_without_a_row(
    task: Any, runner: ShardRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.error = ZeroDivisionError("the user's secret")
    with logging_to_stderr():
        task(shard=1)
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "secret" not in said

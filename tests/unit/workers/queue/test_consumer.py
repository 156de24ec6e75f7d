from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from batchgen.settings import Settings
from batchgen_workers.queue.app import create_app
from batchgen_workers.queue.consumer import Consumer
from batchgen_workers.queue.publisher import ShardPublisher
from batchgen_workers.shard.claim_gate import Draining
from tests.support.workers import wait_until


class Model:
    """A model of a name no other test has."""

    def __init__(self) -> None:
        self.name = f"model-{uuid.uuid4().hex}"


class ShardRunner:
    """Notes the shards it is asked for; one that is held keeps its caller."""

    def __init__(self) -> None:
        self.settings = Settings(shards_in_flight=2)
        self.model = Model()
        self.asked: list[int] = []
        self.held = threading.Event()
        self.held.set()
        self.draining = False

    def run_shard(self, shard_id: int) -> None:
        if self.draining:
            raise Draining
        self.asked.append(shard_id)
        self.held.wait()


def started(consumer: Consumer) -> threading.Thread:
    thread = threading.Thread(target=consumer.run, name="consumer", daemon=True)
    thread.start()
    return thread


@pytest.fixture
def app(broker_url: str, runner: ShardRunner) -> Iterator[Any]:
    app = create_app(Settings(shards_in_flight=2), model=runner.model.name, broker_url=broker_url)
    yield app
    app.close()


@pytest.fixture
def runner() -> ShardRunner:
    return ShardRunner()


@pytest.fixture
def consumer(app: Any, runner: ShardRunner) -> Iterator[Consumer]:
    consumer = Consumer(app, runner)  # type: ignore[arg-type]
    thread = started(consumer)
    yield consumer
    runner.held.set()
    consumer.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_every_shard_that_is_rung_for_reaches_the_node(
    app: Any, consumer: Consumer, runner: ShardRunner
) -> None:
    ShardPublisher(app).publish(runner.model.name, list(range(1, 51)))
    wait_until(lambda: sorted(runner.asked) == list(range(1, 51)))


def test_no_more_messages_are_held_than_there_are_slots(
    app: Any, consumer: Consumer, runner: ShardRunner
) -> None:
    runner.held.clear()
    publisher = ShardPublisher(app)
    publisher.publish(runner.model.name, list(range(1, 11)))
    wait_until(lambda: len(runner.asked) == 2)
    assert publisher.waiting(runner.model.name) >= 7
    runner.held.set()
    wait_until(lambda: len(runner.asked) == 10)


def test_a_second_app_in_one_process_has_its_own_node(broker_url: str) -> None:
    for shard_id in (7, 8):
        runner = ShardRunner()
        app = create_app(Settings(), model=runner.model.name, broker_url=broker_url)
        consumer = Consumer(app, runner)  # type: ignore[arg-type]
        thread = started(consumer)
        ShardPublisher(app).publish(runner.model.name, [shard_id])
        wait_until(lambda runner=runner: bool(runner.asked))  # type: ignore[misc]
        assert runner.asked == [shard_id]
        consumer.stop()
        thread.join(30)
        app.close()


def test_a_draining_node_loses_no_message(app: Any, runner: ShardRunner) -> None:
    runner.draining = True
    consumer = Consumer(app, runner)  # type: ignore[arg-type]
    thread = started(consumer)
    publisher = ShardPublisher(app)
    consumer.stop()
    thread.join(30)
    waiting = publisher.waiting(runner.model.name)
    publisher.publish(runner.model.name, [1])
    assert publisher.waiting(runner.model.name) == waiting + 1

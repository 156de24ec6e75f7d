from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import redis

from batchgen.errors import BrokerUnavailable
from batchgen.settings import Settings
from batchgen_workers.queue.app import create_app
from batchgen_workers.queue.publisher import ShardPublisher

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def publisher(broker_url: str) -> Iterator[ShardPublisher]:
    publisher = ShardPublisher(create_app(Settings(broker_url=broker_url)))
    yield publisher
    publisher.close()


@pytest.fixture
def silent() -> Iterator[ShardPublisher]:
    app = create_app(Settings(broker_url=NOWHERE))
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    publisher = ShardPublisher(app)
    yield publisher
    publisher.close()


def messages(broker_url: str, queue: str) -> list[dict[str, object]]:
    with redis.Redis.from_url(broker_url) as client:
        stored: list[bytes] = client.lrange(f"batchgen:{queue}", 0, -1)
    return [json.loads(message) for message in stored]


def test_shards_are_published_to_their_models_queue(
    publisher: ShardPublisher, broker_url: str
) -> None:
    assert publisher.waiting("tiny") == 0
    assert publisher.publish("tiny", [3, 1, 2]) == []
    assert publisher.publish("other", [4]) == []
    assert (publisher.waiting("tiny"), publisher.waiting("other")) == (3, 1)


def test_a_message_holds_an_id_and_nothing_of_the_job(
    publisher: ShardPublisher, broker_url: str
) -> None:
    publisher.publish("tiny", [17])
    (message,) = messages(broker_url, "bg.tiny")
    arguments, keywords, _ = json.loads(base64.b64decode(str(message["body"])))
    assert (arguments, keywords) == ([], {"shard": 17})
    assert message["content-type"] == "application/json"


def test_what_could_not_be_published_is_named(silent: ShardPublisher) -> None:
    assert silent.publish("tiny", [1, 2, 3]) == [1, 2, 3]


def test_an_absent_broker_is_a_named_error(silent: ShardPublisher) -> None:
    with pytest.raises(BrokerUnavailable):
        silent.waiting("tiny")

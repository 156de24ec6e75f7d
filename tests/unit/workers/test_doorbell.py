from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import redis

from batchgen.errors import BrokerUnavailable
from batchgen.settings import Settings
from batchgen_workers.app import create_app
from batchgen_workers.doorbell import Doorbell

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def doorbell(broker_url: str) -> Iterator[Doorbell]:
    doorbell = Doorbell(create_app(Settings(broker_url=broker_url)))
    yield doorbell
    doorbell.close()


@pytest.fixture
def silent() -> Iterator[Doorbell]:
    app = create_app(Settings(broker_url=NOWHERE))
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    doorbell = Doorbell(app)
    yield doorbell
    doorbell.close()


def messages(broker_url: str, queue: str) -> list[dict[str, object]]:
    with redis.Redis.from_url(broker_url) as client:
        stored: list[bytes] = client.lrange(f"batchgen:{queue}", 0, -1)
    return [json.loads(message) for message in stored]


def test_shards_are_published_to_their_models_queue(doorbell: Doorbell, broker_url: str) -> None:
    assert doorbell.waiting("tiny") == 0
    assert doorbell.ring("tiny", [3, 1, 2]) == []
    assert doorbell.ring("other", [4]) == []
    assert (doorbell.waiting("tiny"), doorbell.waiting("other")) == (3, 1)


def test_a_message_holds_an_id_and_nothing_of_the_job(doorbell: Doorbell, broker_url: str) -> None:
    doorbell.ring("tiny", [17])
    (message,) = messages(broker_url, "bg.tiny")
    arguments, keywords, _ = json.loads(base64.b64decode(str(message["body"])))
    assert (arguments, keywords) == ([], {"shard": 17})
    assert message["content-type"] == "application/json"


def test_what_could_not_be_published_is_named(silent: Doorbell) -> None:
    assert silent.ring("tiny", [1, 2, 3]) == [1, 2, 3]


def test_an_absent_broker_is_a_named_error(silent: Doorbell) -> None:
    with pytest.raises(BrokerUnavailable):
        silent.waiting("tiny")

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
import redis
from kombu import Connection

from batchgen.settings import Settings
from batchgen_workers.queue.app import create_app, queue_of
from batchgen_workers.queue.publisher import ShardPublisher


@pytest.fixture
def app(broker_url: str) -> Iterator[Any]:
    app = create_app(Settings(broker_url=broker_url), model="tiny")
    yield app
    app.close()


def drain(connection: Connection, received: list[Any]) -> None:
    queue = queue_of("tiny")(connection.default_channel)

    def take(body: Any, message: Any) -> None:
        received.append(body)
        message.ack()

    with connection.Consumer([queue], callbacks=[take]):
        while not received:
            try:
                connection.drain_events(timeout=10)
            except Empty:
                continue


@pytest.mark.parametrize("garbage", [b"garbage", b"", b"\xff\xfe", b"[1, 2]", b"null", b'"text"'])
def test_what_is_no_message_is_dropped_and_the_next_one_is_read(
    app: Any, broker_url: str, garbage: bytes
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.lpush("batchgen:bg.tiny", garbage)
    assert ShardPublisher(app).publish("tiny", [17]) == []
    received: list[Any] = []
    with app.connection_for_read() as connection:
        drain(connection, received)
    assert received[0][1] == {"shard": 17}
    with redis.Redis.from_url(broker_url) as client:
        assert client.llen("batchgen:bg.tiny") == 0

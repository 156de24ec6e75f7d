"""Publishes the ids of ready shards. A lost message costs time but no row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import redis.exceptions
from kombu.exceptions import KombuError

from batchgen.errors import BrokerUnavailable
from batchgen_workers.queue.app import queue_of
from batchgen_workers.queue.envelope import RUN_SHARD

if TYPE_CHECKING:
    from celery import Celery

BROKEN = (KombuError, redis.exceptions.RedisError, OSError)


class ShardPublisher:
    """Publishes shard ids to the queues of the models. Threads can share it."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def publish(self, model: str, shard_ids: Sequence[int]) -> list[int]:
        """Publish shards of a model in this order; return those that could not be published."""
        queue = queue_of(model)
        for at, shard_id in enumerate(shard_ids):
            try:
                self._app.send_task(
                    RUN_SHARD,
                    kwargs={"shard": shard_id},
                    queue=queue,  # type: ignore[arg-type]  # a Queue is taken too
                )
            except BROKEN:
                return list(shard_ids[at:])
        return []

    def waiting(self, model: str) -> int:
        """Return the number of messages in a model's queue; raise BrokerUnavailable."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0)
                declared = queue_of(model)(connection.default_channel).queue_declare()
                return int(getattr(declared, "message_count", 0))
        except BROKEN as error:
            raise BrokerUnavailable(f"The broker cannot be reached: {error}") from error

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()

"""Redis as kombu knows it, but what is no message in a queue is dropped, not died of.

kombu parses an item before anybody can look at it, and lets the parser's error end the consumer:
one line of garbage, pushed by whoever can reach the queue, would stop every worker in turn. What
Celery cannot make sense of would never be acknowledged, and hold the one place a message has.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual

from batchgen_workers.logs import get_logger
from batchgen_workers.queue.envelope import NoMessage, rewritten

# Not JSON, not UTF-8, nested without end, or JSON of another shape.
NO_MESSAGE = (NoMessage, ValueError, TypeError, KeyError, AttributeError, RecursionError)

log = get_logger(__name__)


class Message(virtual.Message):
    """A message of which nothing but the shard's id was taken."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        super().__init__(rewritten(payload), channel=channel, **options)


class Channel(redis.Channel):
    """A channel that survives what it reads."""

    Message = Message

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except self.connection_errors:  # type: ignore[attr-defined]
            raise
        except NO_MESSAGE as error:
            log.warning("message ignored", reason=type(error).__name__)
            raise Empty from None


class Transport(redis.Transport):
    """The transport of redis:// and rediss:// in our processes."""

    Channel = Channel


def install() -> None:
    """Let every connection that is opened from now on use this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

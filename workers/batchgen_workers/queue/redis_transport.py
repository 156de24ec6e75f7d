"""kombu's Redis transport, which drops items that are no valid messages.

kombu's own transport parses an item, and a parser error ends the consumer: one line of garbage in
the queue would stop every worker in turn. A message that Celery does not understand would never be
acknowledged, and would keep the only place for a message.
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
    """A message whose envelope was rewritten: only its shard id is kept."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        super().__init__(rewritten(payload), channel=channel, **options)


class Channel(redis.Channel):
    """A channel that drops items which cannot be parsed."""

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
    """The transport for redis:// and rediss:// in our processes."""

    Channel = Channel


def install() -> None:
    """Register the transport for every connection that is opened from now on."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

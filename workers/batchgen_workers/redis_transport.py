"""Redis as kombu knows it, but what is no message in a queue is dropped, not died of.

kombu parses an item before anybody can look at it, and lets the parser's error end the consumer:
one line of garbage, pushed by whoever can reach the queue, would stop every worker in turn.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

from batchgen_workers.logs import get_logger

# Not JSON, not UTF-8, or JSON of another shape.
NO_MESSAGE = (ValueError, TypeError, KeyError, AttributeError)

log = get_logger(__name__)


class Channel(redis.Channel):
    """A channel that survives what it reads."""

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

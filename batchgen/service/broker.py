"""Reaching the broker."""

from __future__ import annotations

from typing import Any

import redis

from batchgen.errors import BrokerUnavailable, InvalidParameter

TIMEOUT = 5.0  # seconds
SCHEMES = ("redis://", "rediss://", "redis+socket://", "unix://")


def ping(url: str) -> str:
    """Ask the broker for a sign of life and return what it is, `Valkey 9.1.2`.

    Raises:
        InvalidParameter: the URL names no Redis or Valkey.
        BrokerUnavailable: it does not answer.
    """
    if not url.startswith(SCHEMES):
        raise InvalidParameter(
            f"The broker URL begins with none of {', '.join(SCHEMES)}.", param="broker_url"
        )
    # Celery writes a socket as redis+socket://, the client as unix://
    address = url.replace("redis+socket://", "unix://", 1)
    try:
        with redis.Redis.from_url(
            address, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        ) as client:
            info: dict[str, Any] = client.info("server")
    except ValueError:
        raise InvalidParameter(
            "The broker URL cannot be parsed. Write redis://:password@host:6379/0; "
            "percent-encode special characters.",
            param="broker_url",
        ) from None
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"The broker cannot be reached: {error}. Check BATCHGEN_BROKER_URL and that the "
            "server runs."
        ) from error
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of unknown version')}"

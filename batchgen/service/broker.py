"""Check that the broker answers."""

from __future__ import annotations

from typing import Any

import redis

from batchgen.errors import BrokerUnavailable
from batchgen.service.broker_url import broker_addresses, client_url, unusable

TIMEOUT = 5.0  # seconds


def ping(url: str) -> str:
    """Ping the broker and return its name and version, such as `Valkey 9.1.2`.

    If the URL names several brokers, the first that answers is used.

    Raises:
        InvalidParameter: the URL names no Redis or Valkey.
        BrokerUnavailable: none answers.
    """
    list(broker_addresses(url))
    *others, last = url.split(";")
    for one in others:
        try:
            return _ping(one)
        except BrokerUnavailable:
            continue
    return _ping(last)


def _ping(url: str) -> str:
    try:
        with redis.Redis.from_url(
            client_url(url), socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        ) as client:
            info: dict[str, Any] = client.info("server")
    except ValueError:
        raise unusable() from None
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"The broker cannot be reached: {error}. Check BATCHGEN_BROKER_URL and that the "
            "server runs."
        ) from error
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of unknown version')}"

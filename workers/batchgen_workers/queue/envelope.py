"""Rewrites incoming messages: keeps the shard id, and builds a new envelope around it.

Every client of the broker can write envelopes, and Celery obeys their headers: it decompresses
bodies to any size, waits until a date, calls the next task. Here they are ignored: of a message
only the shard's id is used, and Celery sees an envelope that we wrote.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

RUN_SHARD = "batchgen.run_shard"  # the one task's name; its only argument is `shard`, an id
MAX_BODY = 4096  # characters of base64; ours have about 130


class NoMessage(ValueError):
    """The item in the queue is not one of our messages. It is dropped."""


def rewritten(payload: Any) -> dict[str, Any]:
    """Return a new message with the shard id of `payload`; raise NoMessage."""
    try:
        shard = _shard_in(payload)
        delivery = payload["properties"]["delivery_info"]
        exchange, routing_key = delivery["exchange"], delivery["routing_key"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NoMessage(type(error).__name__) from None
    if not isinstance(exchange, str) or not isinstance(routing_key, str):
        raise NoMessage("a queue that has no name")
    return _envelope(shard, {"exchange": exchange, "routing_key": routing_key})


def _shard_in(payload: Any) -> int:
    if payload["headers"]["task"] != RUN_SHARD:
        raise NoMessage("another task")
    body = payload["body"]
    if len(body) > MAX_BODY:
        raise NoMessage("too long")
    arguments, named, _ = json.loads(base64.b64decode(body, validate=True))
    if arguments != [] or list(named) != ["shard"]:
        raise NoMessage("other arguments")
    shard = named["shard"]
    if not isinstance(shard, int) or isinstance(shard, bool):
        raise NoMessage("not a shard id")
    return shard


def _envelope(shard: int, delivery_info: dict[str, str]) -> dict[str, Any]:
    message = str(uuid.uuid4())
    body = json.dumps([[], {"shard": shard}, {}]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": RUN_SHARD, "id": message, "root_id": message},
        "properties": {
            "correlation_id": message,
            "delivery_mode": 2,
            "delivery_info": delivery_info,
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }

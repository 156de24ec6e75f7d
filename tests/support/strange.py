"""Workers and coordinators on strange machines: what a test cannot do to a process from outside."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.nursery import run_process


def with_short_visibility(arguments: list[str]) -> int:
    """Redeliver every message that is not acknowledged within a second."""
    from batchgen_workers.queue import app

    redis = app._redis

    def impatient() -> dict[str, Any]:
        found = redis()
        found["broker_transport_options"] |= {
            "visibility_timeout": 1,
            "unacked_restore_interval": 1,
        }
        return found

    app._redis = impatient
    return run_process(arguments)


def publishing_too_often(arguments: list[str]) -> int:
    """Publish every shard three times, in any order, and once more with each later one."""
    from batchgen_workers.queue.publisher import ShardPublisher

    publish = ShardPublisher.publish
    published: list[int] = []

    def publish_often(self: ShardPublisher, model: str, shard_ids: Any) -> list[int]:
        published.extend(shard_ids)
        messages = [*shard_ids, *shard_ids, *shard_ids, *published]
        random.shuffle(messages)
        return [shard for shard in publish(self, model, messages) if shard in set(shard_ids)]

    ShardPublisher.publish = publish_often  # type: ignore[method-assign]
    return run_process(arguments)


def two_hours_ahead(arguments: list[str]) -> int:
    """Live on a machine whose clock is wrong."""
    return _with_clock(arguments, lambda now: now + 7200)


def two_hours_behind(arguments: list[str]) -> int:
    """Live on a machine whose clock is wrong the other way."""
    return _with_clock(arguments, lambda now: now - 7200)


def with_jumping_clock(arguments: list[str]) -> int:
    """Live on a machine whose clock is two hours wrong, another way at every look."""
    return _with_clock(arguments, lambda now: now + random.choice((-7200, 7200)))  # noqa: S311


def without_names_until(path: str) -> Callable[[list[str]], int]:
    """Return a process for which no host has an address before a file exists."""
    return _Nameless(path)


class _Nameless:
    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, arguments: list[str]) -> int:
        resolve = socket.getaddrinfo

        def nameless(host: Any, *args: Any, **options: Any) -> Any:
            if not Path(self._path).exists():
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return resolve("127.0.0.1" if host == "broker.test" else host, *args, **options)

        socket.getaddrinfo = nameless
        return run_process(arguments)


def _with_clock(arguments: list[str], wrong: Callable[[float], float]) -> int:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: wrong(now())
    time.time_ns = lambda: int(wrong(now_ns() / 1e9) * 1e9)
    return run_process(arguments)

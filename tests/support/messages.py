"""Messages that anybody who reaches the broker could put into a queue of shard ids."""

from __future__ import annotations

import base64
import bz2
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

from batchgen_workers.queue.envelope import RUN_SHARD

JSON = "application/json"
BOMB = 512 << 20  # bytes that a few hundred unpack to


class Canary:
    """Leaves a file behind where somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self._path,))


def message(
    body: bytes = b"[[], {}, {}]",
    *,
    task: Any = RUN_SHARD,
    content_type: str | None = JSON,
    encoding: str = "utf-8",
    headers: dict[str, Any] | None = None,
    **properties: Any,
) -> bytes:
    """Return an envelope as Celery writes it, with parts of it replaced."""
    tag = base64.b64encode(body[:16]).decode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": tag, "root_id": tag, **(headers or {})},
            "properties": {
                "correlation_id": tag,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "bg.tiny"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag,
                **properties,
            },
        }
    ).encode()


def ring(shard: Any) -> bytes:
    """Return the message of a shard id, or of what somebody takes for one."""
    return message(json.dumps([[], {"shard": shard}, {}]).encode())


def garbage() -> list[bytes]:
    """Return what is no message, or none of ours."""
    return [
        b"garbage",
        b"\xff\xfe\x00",
        b"",
        b"{}",
        b"[1,2",
        b"null",
        b"[" * 100_000,
        b'{"body": 1, "properties": [], "headers": "x"}',
        b"x" * 10_000_000,
        message(b"x" * 10_000_000),
        message(b"not json"),
        message(b"\xff\xfe"),
        message(b"[" * 100_000),
        message(b'[[], {"shard": ' + b"1" * 5_000 + b"}, {}]"),
        message(b"{}"),
        message(b"[[], {}]"),
        message(b"[1, 2, 3]"),
        message(b'[[1, 2], {"shard": 3}, {}]'),
        message(b'[[], {"other": 1}, {}]'),
        message(content_type=None),
        message(content_type="application/x-yaml"),
        message(encoding="no-such-encoding"),
        message(body_encoding="no-such-encoding"),
        message(delivery_tag={"a": 1}),
        message(delivery_info=None),
        message(task="os.system"),
        message(b'[["true"], {}, {}]', task="builtins.eval"),
        message(task="celery.backend_cleanup"),
        message(b'[[{"task": "batchgen.run_shard"}, [[1]]], {}, {}]', task="celery.starmap"),
        message(task=["a", "list"]),
        message(task=None),
        message(headers={"eta": "not a time"}),
        message(headers={"expires": {"a": 1}}),
        message(headers={"timelimit": ["x", -1]}),
        message(headers={"retries": "many"}),
        message(headers={"compression": "no-such-compression"}),
        message(b'[[], {"shard": 0}, {"callbacks": [{"task": 1}], "chain": [7], "chord": {}}]'),
    ]


def pickles(canary: Path) -> list[bytes]:
    """Return what leaves `canary` where it is unpickled."""
    evil = pickle.dumps(Canary(canary))
    names = ("application/x-python-serialize", "pickle", JSON)
    return [evil, *(message(evil, content_type=name, encoding="binary") for name in names)]


def foreign_ids() -> list[bytes]:
    """Return rings for shards that cannot be."""
    special = [
        {"__type__": "datetime", "__value__": "nonsense"},
        {"__type__": "uuid", "__value__": {"__type__": "bytes", "__value__": 1}},
        {"__type__": "os.system", "__value__": "true"},
        {"__type__": ["a"], "__value__": None},
    ]
    ids = [0, -1, -(2**63), 2**63, 2**70, 999_999, 1.5, True, None, "7", "../../etc/passwd"]
    return [ring(shard) for shard in [*ids, [1], {"a": 1}, float("nan"), float("inf"), *special]]


@cache
def bombs() -> list[bytes]:
    """Return a message that is small until it is unpacked."""
    packer, packed = bz2.BZ2Compressor(), b""
    zeros = bytes(1 << 24)
    for _ in range(BOMB // len(zeros)):
        packed += packer.compress(zeros)
    packed += packer.flush()
    return [message(packed, headers={"compression": "application/x-bz2"})]

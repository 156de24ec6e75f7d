from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from batchgen_workers.queue.envelope import RUN_SHARD, NoMessage, rewritten
from tests.support.messages import message, ring


def parsed(raw: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(raw)
    return payload


def body_of(payload: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(payload["body"]))


@pytest.mark.parametrize("shard", [0, -1, 17, 2**70])
def test_of_a_message_the_id_is_taken(shard: int) -> None:
    payload = rewritten(parsed(ring(shard)))
    assert body_of(payload) == [[], {"shard": shard}, {}]
    assert payload["headers"]["task"] == RUN_SHARD
    assert payload["properties"]["delivery_info"]["routing_key"] == "bg.tiny"


def test_the_rest_is_ours() -> None:
    body = b'[[], {"shard": 7}, {"callbacks": [{"task": "x"}], "chain": [1]}]'
    payload = parsed(
        message(
            body,
            headers={"compression": "bzip2", "eta": "2099-01-01", "retries": "x", "id": {"a": 1}},
            content_type="application/x-python-serialize",
            reply_to="elsewhere",
            delivery_tag={"a": 1},
        )
    )
    found = rewritten(payload)
    assert body_of(found) == [[], {"shard": 7}, {}]
    assert found["content-type"] == "application/json"
    assert set(found["headers"]) == {"lang", "task", "id", "root_id"}
    assert "reply_to" not in found["properties"]
    tags = {rewritten(payload)["properties"]["delivery_tag"] for _ in range(2)}
    assert len(tags) == 2  # two of one name would be acknowledged as one


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        {"headers": None},
        parsed(message(task="os.system")),
        parsed(message(task=["batchgen.run_shard"])),
        parsed(message(b"not json")),
        parsed(message(b"[" * 2_000)),
        parsed(message(b"[[], {}, {}]" + b" " * 10_000)),
        parsed(message(b'[[1], {"shard": 1}, {}]')),
        parsed(message(b'[[], {"shard": 1, "other": 2}, {}]')),
        parsed(message(b'[[], {"shard": 1}]')),
        parsed(message(b'[[], {"shard": 1}, {}]', delivery_info={"exchange": ""})),
        parsed(message(b'[[], {"shard": 1}, {}]', delivery_info=7)),
        parsed(message(b'[[], {"shard": 1}, {}]', delivery_info={"exchange": 1, "routing_key": 2})),
        *(parsed(ring(shard)) for shard in (True, None, "7", 1.5, [1], {"__type__": "uuid"})),
    ],
)
def test_what_is_no_message_of_ours_is_named_as_such(payload: Any) -> None:
    with pytest.raises(NoMessage):
        rewritten(payload)

from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.core.endpoints import CHAT, COMPLETIONS, RESPONSES
from batchgen.core.rows import InputRow
from batchgen.requests.lines import LineParser
from batchgen.requests.openai.plain_endpoints import plain_endpoint

MESSAGES = [{"role": "user", "content": "Why?"}]


def batch_line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


@pytest.mark.parametrize(
    "line",
    [
        {"messages": MESSAGES},
        {"prompt": "Why?"},
        {"prompt": [1, 2]},
        {"prompt": "Why?", "messages": None},
        {"messages": MESSAGES, "prompt": None, "answer": [40]},
        {"prompt": "Why?", "url": CHAT},
        {"messages": MESSAGES, "url": COMPLETIONS, "body": "data"},
        batch_line(CHAT, messages=MESSAGES, model="tiny"),
        batch_line(COMPLETIONS, prompt="Why?"),
        {**batch_line(CHAT, messages=MESSAGES), "topic": "reasons"},
    ],
    ids=json.dumps,
)
def test_a_line_has_the_endpoint_that_the_parser_reads(line: dict[str, Any]) -> None:
    raw = json.dumps(line).encode()
    row = LineParser({}).parse(raw, 0)
    assert isinstance(row, InputRow)
    assert plain_endpoint(raw) == row.endpoint


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(batch_line(RESPONSES, input="Why?")).encode(),
        json.dumps(batch_line("/v1/embeddings", input="Why?")).encode(),
        b'{"url": ["/v1/completions"], "body": {}}',
        b"",
        b"{",
        b"[]",
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
    ids=lambda raw: raw[:20].decode(errors="replace"),
)
def test_the_parser_reads_all_other_lines(raw: bytes) -> None:
    assert plain_endpoint(raw) is None

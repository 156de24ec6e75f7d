"""Result rows of every kind, for tests that compare two ways of writing them."""

from __future__ import annotations

import json

import msgspec

from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from tests.support.result_rows import error_row, ok_row

#: Every control character, what JSON escapes, what ends a line, and letters of each UTF-8 length.
ALL_CHARACTERS = (
    "".join(map(chr, range(0x21))) + '"\\/\x7f\x80\x85\u00e9\u2028\u2029\u20ac\U0001f600'
)

TOOL_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
LOGPROBS = json.dumps(
    {
        "content": [{"token": "a\n", "logprob": -0.5, "bytes": [97, 10], "top_logprobs": []}],
        "refusal": None,
        "prompt": [None, {"token": "b", "logprob": -1e-07, "bytes": [98], "top_logprobs": []}],
    }
)
EXTRA = msgspec.json.encode(
    {"text": ALL_CHARACTERS, "large": 1e16, "small": 1e-7, "id": 1 << 70, "list": [None, True]}
).decode()


def choices(*texts: str, **fields: object) -> list[Choice]:
    """Return a choice for each text."""
    return [
        Choice(index=index, text=text, finish_reason="stop", **fields)  # type: ignore[arg-type]
        for index, text in enumerate(texts)
    ]


def rows_of_every_kind() -> list[ResultRow]:
    """Return rows in order, numbered from 0, that differ in everything a row can differ in."""
    kinds: list[ResultRow] = [
        ok_row(0),
        ok_row(0, "", extra=EXTRA),
        ok_row(0, ALL_CHARACTERS, custom_id=ALL_CHARACTERS, model='org/"m"'),
        ok_row(0, TOOL_CALL, seed=None, usage=None),
        ok_row(0, choices=choices("one", ALL_CHARACTERS, "three")),
        ok_row(0, choices=choices("beam", score=None)),
        *(ok_row(0, choices=choices("x", score=score)) for score in (0.0, -1e-7, 1e300, 1e16)),
        ok_row(0, choices=choices("tokens", "more", tokens=[1, 2, 3])),
        ok_row(0, choices=choices("none", tokens=[])),
        ok_row(0, choices=choices("a\n", logprobs=LOGPROBS)),
        ok_row(0, choices=choices("a\n", "b", logprobs=LOGPROBS, tokens=[7])),
        ok_row(0, choices=[Choice(index=0, text="cut", finish_reason="length")]),
        ok_row(0, choices=[]),
        ok_row(0, request_id="0538a1cc", created_at=1_790_000_000_000_000, latency_ms=0),
        ok_row(0, request_id="req_req_1", created_at=1_711_475_054_999_999, attempt=3),
        ok_row(0, usage=Usage(prompt_tokens=1, completion_tokens=0), seed=-(1 << 63)),
        error_row(0),
        error_row(0, extra=EXTRA, custom_id=ALL_CHARACTERS),
        error_row(0, error=RowError(code="poison", message=ALL_CHARACTERS)),
        error_row(0, error=RowError(code="batch_expired", message="Too late.")),
        error_row(0, error=RowError(code="batch_cancelled", message='"'), request_id="9"),
        error_row(0, usage=Usage(prompt_tokens=9, completion_tokens=0), seed=None),
    ]
    return [msgspec.structs.replace(row, row=number) for number, row in enumerate(kinds)]

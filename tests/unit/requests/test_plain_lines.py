from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.endpoints import CHAT as CHAT_URL
from batchgen.core.endpoints import COMPLETIONS as COMPLETIONS_URL
from batchgen.core.rows import InputRow
from batchgen.requests.fields import MAX_TOKENS, SHORTHAND_FIELDS
from batchgen.requests.lines import MAX_ID_LENGTH, LineParser
from batchgen.requests.plain_lines import PlainLines
from batchgen.requests.values.checks import MAX_STOP_LENGTH, MAX_STOP_STRINGS

MODEL = "m"
PARSER = LineParser({}, MODEL)
PLAIN = PlainLines(PARSER)
# A job that leaves less room: many values of a row contradict it.
TIGHT = LineParser({"num_beams": 3, "min_tokens": 2, "logprobs": True, "top_logprobs": 2}, MODEL, 9)
CHAT = [{"role": "user", "content": 'Say "yes": \\ or no'}]
BATCH = {"custom_id": "a", "method": "POST", "url": CHAT_URL, "body": {"messages": CHAT}}

COMPLETION = {**BATCH, "url": COMPLETIONS_URL, "body": {"prompt": "x"}}
BASES: list[dict[str, Any]] = [
    {"messages": CHAT},
    {"prompt": "x"},
    {"prompt": "x", "id": "q"},
    {"prompt": "x", "custom_id": "c"},
    {"prompt": "x", "topic": {"a": [1, "b"]}, "max_tokens": 2},
    {"messages": CHAT, "topic": 1, "max_completion_tokens": 2},
    {"prompt": "x", "n": 2, "num_beams": 2},
    {"prompt": [5, 6], "topic": "ids"},
    {"prompt": "x", "min_tokens": 2, "max_tokens": 3, "logprobs": True, "top_logprobs": 1},
    BATCH,
    COMPLETION,
]
# Values of every type and on both sides of every bound.
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 0.0, 1.0, 1.5, 2.0, 2.5, 1e-9, -0.5),
    *(8, 9, 10, 10.5, 20, 21, 64, 65, 128, 129, -2, -2.5, -10, -10.5, "never"),
    *(MAX_TOKENS, MAX_TOKENS + 1, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1),
    *("", "x", 'a "b": c', "\\", "\0", "\u2028", "row-3", MODEL, "POST", CHAT_URL, COMPLETIONS_URL),
    *("s" * MAX_STOP_LENGTH, "s" * (MAX_STOP_LENGTH + 1)),
    *("i" * MAX_ID_LENGTH, "i" * (MAX_ID_LENGTH + 1)),
    *([7], [7, 8], [-1], [7.0], [7, "a"], [True], [7] * 128, [7] * 129),
    *([], ["a"], ["a", ""], ["a", 5], ["a"] * MAX_STOP_STRINGS, ["a"] * (MAX_STOP_STRINGS + 1)),
    *({}, {"messages": CHAT}, {"prompt": "x"}, {"prompt": "x", "messages": CHAT}, CHAT, [CHAT]),
    *([{}], [{"role": "user"}], [{"role": "human", "content": "x"}], [{**CHAT[0], "name": "n"}]),
    *([{"role": role, "content": "x"}] for role in ("system", "developer", "assistant", "tool")),
    [{"role": "user", "content": None}],
    [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
]
FIELDS = [
    *("id", "custom_id", "method", "url", "body", "messages", "prompt", "model", "topic"),
    *SHORTHAND_FIELDS,
]


def variants(base: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The line with one field changed or taken away, at its top or in its body."""
    yield base
    for name in FIELDS:
        yield {other: value for other, value in base.items() if other != name}
        yield from ({**base, name: value} for value in VALUES)
        if "body" in base:
            yield from ({**base, "body": {**base["body"], name: value}} for value in VALUES)


@pytest.mark.parametrize("base", BASES, ids=lambda base: "-".join(base))
@pytest.mark.parametrize("parser", [PARSER, TIGHT], ids=["free", "tight"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_plain_line_is_one_that_the_parser_accepts(
    base: dict[str, Any], ascii_only: bool, parser: LineParser
) -> None:
    plain_lines, plain = PlainLines(parser), 0
    for line in variants(base):
        raw = json.dumps(line, ensure_ascii=ascii_only).encode()
        if (found := plain_lines.id_of(raw, 4)) is not None:
            plain += 1
            parsed = parser.parse(raw, 4)
            assert isinstance(parsed, InputRow), line
            assert parsed.custom_id == found, line
    assert plain > len(FIELDS)


@given(st.lists(st.sampled_from([*BATCH.items(), ("custom_id", "b"), ("prompt", "x")]), max_size=6))
def test_a_plain_line_gives_no_name_twice(pairs: list[tuple[str, Any]]) -> None:
    raw = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    found = PLAIN.id_of(raw.encode(), 4)
    if len({name for name, _ in pairs}) < len(pairs):
        assert found is None
    elif found is not None:
        assert isinstance(PARSER.parse(raw.encode(), 4), InputRow)


@pytest.mark.parametrize(
    ("line", "custom_id"),
    [
        ({"messages": CHAT}, "row-4"),
        ({"prompt": "a \\ b\n", "max_tokens": 5, "stop": ["a", "b"], "id": "q"}, "q"),
        ({"prompt": "x", "custom_id": "c", "temperature": 1, "seed": -5, "stop": "z"}, "c"),
        ({"messages": CHAT, "topic": [{"a": 1}], "n": 1, "ignore_eos": True}, "row-4"),
        ({"prompt": [1, 2], "max_tokens": 5, "topic": 1}, "row-4"),
        ({**BATCH, "url": COMPLETIONS_URL, "body": {"prompt": [0]}}, "a"),
        (BATCH, "a"),
        ({**BATCH, "body": {"messages": CHAT, "model": MODEL, "top_p": 0.5}}, "a"),
        ({**BATCH, "url": COMPLETIONS_URL, "body": {"prompt": "x"}}, "a"),
        ({"prompt": "x", "min_p": 0.1, "repetition_penalty": 1.1, "prompt_logprobs": 0}, "row-4"),
        ({"prompt": "x", "presence_penalty": -2, "frequency_penalty": 2, "id": "q"}, "q"),
        ({"prompt": "x", "stop_token_ids": [0, 7], "stop": ["a"]}, "row-4"),
        ({"prompt": "x", "n": 4, "num_beams": 4, "early_stopping": "never", "id": "q"}, "q"),
        ({**BATCH, "body": {"messages": CHAT, "logprobs": True, "top_logprobs": 5}}, "a"),
        (
            {"prompt": "x", "min_tokens": 5, "max_completion_tokens": 5, "length_penalty": 0},
            "row-4",
        ),
    ],
)
def test_common_lines_are_plain(line: Any, custom_id: str) -> None:
    assert PLAIN.id_of(json.dumps(line).encode(), 4) == custom_id


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"prompt": "x", "topic": 1, "topic": 1}',
        b'{"prompt": "x", "topic": {"a": 18446744073709551616}}',
        b'{"prompt": "x", "logprobs": 1}',
        b'{"prompt": "x", "regex": "a"}',
        b'{"prompt": "x", "n": 3, "num_beams": 2}',
        b'{"prompt": "x", "min_tokens": 3, "max_tokens": 2}',
        b'{"prompt": "x", "top_logprobs": 1}',
        b'{"messages": [{"role": "user", "content": "x", "weight": 1}], "topic": 1}',
        b'{"prompt": "x", "prompt": "x"}',
        b'{"prompt": "x\\u0000"}',
        b'{"prompt": "' + b"x" * (1 << 20) + b'"}',
        b'{"prompt": ' * 100_000,
        json.dumps({**BATCH, "body": {"messages": CHAT, "model": "other"}}).encode(),
    ],
)
def test_other_lines_are_left_to_the_parser(raw: bytes) -> None:
    assert PLAIN.id_of(raw, 4) is None

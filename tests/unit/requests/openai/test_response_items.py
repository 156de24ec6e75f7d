from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.openai.response_items import read_input
from batchgen.requests.values.line_error import LineError

CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rom"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
USER = {"role": "user", "content": "Why?"}


def test_a_text_is_the_users() -> None:
    assert read_input("Why?", None) == [USER]
    assert read_input("Why?", "Be short.") == [{"role": "system", "content": "Be short."}, USER]


def test_items_become_the_messages_of_a_chat() -> None:
    items = [
        {"role": "developer", "content": "Be short."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Why"},
                {"type": "input_text", "text": "not?"},
            ],
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "So.", "annotations": [], "logprobs": []}],
        },
        USER,
    ]
    assert read_input(items, None) == [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Why\nnot?"},
        {"role": "assistant", "content": "So."},
        USER,
    ]


def test_the_calls_of_one_turn_are_one_message() -> None:
    said = {"role": "assistant", "content": "I look."}
    second = {**CALL, "call_id": "c2", "arguments": "", "status": "completed", "id": "fc_2"}
    messages = read_input([USER, said, CALL, second, RESULT, CALL], None)
    called = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": {"city": "Rom"}},
    }
    other = {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": {}}}
    assert messages == [
        USER,
        {**said, "tool_calls": [called, other]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
    ]


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ("", "invalid_value", "input"),
        ([], "invalid_value", "input"),
        (5, "invalid_type", "input"),
        (["x"], "invalid_type", "input[0]"),
        ([USER, {"role": "tool", "content": "x"}], "invalid_value", "input[1].role"),
        ([{"role": "user"}], "missing_required_parameter", "input[0].content"),
        ([{**USER, "name": "Eve"}], "unsupported_parameter", "input[0]"),
        ([{"type": "reasoning", "summary": []}], "unsupported_content", "input[0]"),
        ([{"type": "item_reference", "id": "msg_1"}], "unsupported_content", "input[0]"),
        ([{"type": ["message"]}], "invalid_type", "input[0].type"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
            "unsupported_content",
            "input[0].content[0]",
        ),
        ([{**CALL, "call_id": None}], "invalid_type", "input[0].call_id"),
        ([{**CALL, "name": 5}], "invalid_type", "input[0].name"),
        ([{**CALL, "arguments": "[1]"}], "invalid_type", "input[0].arguments"),
        ([{**RESULT, "output": None}], "missing_required_parameter", "input[0].output"),
    ],
)
def test_other_inputs_are_refused(value: Any, code: str, param: str) -> None:
    with pytest.raises(LineError) as caught:
        read_input(value, None)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)


def test_instructions_are_a_text() -> None:
    with pytest.raises(LineError, match="'instructions' must be a text"):
        read_input("Why?", [USER])

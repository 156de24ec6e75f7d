from __future__ import annotations

from typing import Any

import pytest

from batchgen.io.line_error import LineError
from batchgen.io.messages import check_messages

USER = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_plain_messages_stay_as_they_are(role: str) -> None:
    messages = [{"role": role, "content": ""}, USER]
    assert check_messages(messages) == messages


def test_text_parts_become_one_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert check_messages([{"role": "user", "content": parts}]) == [
        {"role": "user", "content": "one\ntwo"}
    ]


def test_empty_fields_of_openai_messages_are_dropped() -> None:
    message: dict[str, Any] = {
        **USER,
        "name": "Anna",
        "tool_calls": [],
        "refusal": None,
        "audio": None,
    }
    assert check_messages([message]) == [{**USER, "name": "Anna"}]


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ("hello", "invalid_type", "messages"),
        ({}, "invalid_type", "messages"),
        ([], "invalid_value", "messages"),
        ([USER, "hello"], "invalid_type", "messages[1]"),
        ([{"content": "x"}], "missing_required_parameter", "messages[0].role"),
        ([{"role": "user"}], "missing_required_parameter", "messages[0].content"),
        ([{"role": "user", "content": None}], "missing_required_parameter", "messages[0].content"),
        ([{"role": "human", "content": "x"}], "invalid_value", "messages[0].role"),
        ([{"role": ["user"], "content": "x"}], "invalid_value", "messages[0].role"),
        ([{"role": "user", "content": 5}], "invalid_type", "messages[0].content"),
        ([{"role": "user", "content": []}], "invalid_value", "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "invalid_type", "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "invalid_type",
            "messages[0].content[0].text",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "unsupported_content",
            "messages[0].content[0]",
        ),
        ([{**USER, "name": 5}], "invalid_type", "messages[0].name"),
        ([{**USER, "tool_calls": [{}]}], "unsupported_parameter", "messages[0].tool_calls"),
        ([{**USER, "weight": 1}], "unknown_parameter", "messages[0]"),
    ],
)
def test_other_messages_are_refused_by_place(messages: Any, code: str, param: str) -> None:
    with pytest.raises(LineError) as caught:
        check_messages(messages)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)
    assert f"'{param}" in caught.value.error.message

from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.values.line_error import LineError
from batchgen.requests.values.messages import check_messages

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


def test_fields_that_say_nothing_are_dropped() -> None:
    empty: dict[str, Any] = {
        "annotations": [],
        "audio": None,
        "function_call": None,
        "reasoning_content": "",
        "refusal": None,
        "tool_calls": None,
        "tool_call_id": None,
    }
    replayed = {"role": "assistant", "content": "Because.", "name": None, **empty}
    assert check_messages(
        [{**USER, "name": "A", **empty}, replayed, {**USER, "tool_calls": []}]
    ) == [
        {**USER, "name": "A"},
        {"role": "assistant", "content": "Because."},
        USER,
    ]


CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}


def calling(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", **function}}]}


def test_a_call_of_a_tool_needs_no_content_and_has_an_object_of_arguments() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}
    function = {"name": "weather", "arguments": {"city": "Bern"}}
    assert check_messages([USER, called, result]) == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{**CALL, "function": function}]},
        result,
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"a": 1}, {"a": 1}), ("{}", {}), ("", {}), ('{"a":[1]}', {"a": [1]})],
)
def test_arguments_are_an_object_or_its_text(arguments: Any, expected: Any) -> None:
    calls = check_messages([calling(arguments=arguments)])[0]["tool_calls"]
    assert calls == [{"type": "function", "function": {"name": "f", "arguments": expected}}]


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
        ([{**USER, "tool_calls": [CALL]}], "invalid_value", "messages[0].tool_calls"),
        ([{**USER, "refusal": "no"}], "unsupported_parameter", "messages[0].refusal"),
        ([{**USER, "annotations": [{}]}], "unsupported_parameter", "messages[0].annotations"),
        (
            [{"role": "assistant", "content": None, "tool_calls": []}],
            "missing_required_parameter",
            "messages[0].content",
        ),
        (
            [{"role": "assistant", "tool_calls": CALL}],
            "invalid_type",
            "messages[0].tool_calls",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}],
            "unsupported_parameter",
            "messages[0].tool_calls[0].type",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "result": 1}]}],
            "unknown_parameter",
            "messages[0].tool_calls[0]",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "id": 1}]}],
            "invalid_type",
            "messages[0].tool_calls[0].id",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "1"}]}],
            "invalid_type",
            "messages[0].tool_calls[0].function",
        ),
        ([calling(name=1)], "invalid_type", "messages[0].tool_calls[0].function.name"),
        ([calling(arguments="{")], "invalid_type", "messages[0].tool_calls[0].function.arguments"),
        (
            [calling(arguments="[1]")],
            "invalid_type",
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([calling()], "invalid_type", "messages[0].tool_calls[0].function.arguments"),
        ([{**USER, "weight": 1}], "unknown_parameter", "messages[0]"),
    ],
)
def test_other_messages_are_refused_by_place(messages: Any, code: str, param: str) -> None:
    with pytest.raises(LineError) as caught:
        check_messages(messages)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)
    assert f"'{param}" in caught.value.error.message

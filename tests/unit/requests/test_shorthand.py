from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.shorthand import read_shorthand_line
from batchgen.requests.values.line_error import LineError

CHAT = [{"role": "user", "content": "Why?"}]


def test_a_chat_with_sampling_and_the_callers_own_fields() -> None:
    question = read_shorthand_line(
        {"id": "a", "messages": CHAT, "temperature": 0, "topic": "t", "model": "other", "user": 5}
    )
    assert question.messages == CHAT
    assert question.prompt is None
    assert question.params == {"temperature": 0.0}
    assert question.extra == {"topic": "t", "model": "other", "user": 5}


def test_a_raw_text() -> None:
    question = read_shorthand_line({"prompt": "Once", "messages": None, "stop": "\n"})
    assert (question.prompt, question.messages) == ("Once", None)
    assert question.params == {"stop": ("\n",)}
    assert question.extra == {}


def test_a_prompt_of_token_ids() -> None:
    assert read_shorthand_line({"prompt": [1, 0, 7]}).prompt == [1, 0, 7]


def test_a_list_of_prompts_says_what_to_do() -> None:
    for prompts in (["a", "b"], [[1], [2]]):
        with pytest.raises(LineError, match="one line for each"):
            read_shorthand_line({"prompt": prompts})


def test_an_id_beside_a_custom_id_is_data() -> None:
    assert read_shorthand_line({"prompt": "x", "custom_id": "a", "id": 7}).extra == {"id": 7}
    assert read_shorthand_line({"prompt": "x", "custom_id": None, "id": 7}).extra == {}


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ({}, "missing_required_parameter", "messages"),
        ({"text": "x"}, "missing_required_parameter", "messages"),
        ({"prompt": None}, "missing_required_parameter", "messages"),
        ({"prompt": "x", "messages": CHAT}, "invalid_value", None),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": ["x"]}, "invalid_type", "prompt"),
        ({"prompt": [[1], [2]]}, "invalid_type", "prompt"),
        ({"prompt": [1, "x"]}, "invalid_type", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [1, True]}, "invalid_type", "prompt"),
        ({"prompt": [1.0]}, "invalid_type", "prompt"),
        ({"prompt": [-1]}, "invalid_value", "prompt"),
        ({"prompt": 5}, "invalid_type", "prompt"),
        ({"prompt": "x", "max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"messages": []}, "invalid_value", "messages"),
    ],
)
def test_other_lines_are_refused(line: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(LineError) as caught:
        read_shorthand_line(line)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)

from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.openai.openai_lines import is_openai_line, read_openai_line
from batchgen.requests.values.line_error import LineError

CHAT = [{"role": "user", "content": "Why?"}]
BODY = {"model": "m", "messages": CHAT}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**LINE, **fields}.items() if value != "absent"}


def with_body(**fields: Any) -> dict[str, Any]:
    return changed(body={name: v for name, v in {**BODY, **fields}.items() if v != "absent"})


def test_lines_are_told_apart_by_where_the_prompt_stands() -> None:
    assert is_openai_line(LINE)
    assert is_openai_line({"method": "POST", "url": "/v1/completions"})
    assert not is_openai_line({"prompt": "x", "url": "https://example.org", "body": "text"})
    assert not is_openai_line({"text": "x"})


def test_a_chat() -> None:
    question = read_openai_line(with_body(temperature=0, user="u", max_completion_tokens=5))
    assert question.messages == CHAT
    assert question.prompt is None
    assert question.params == {"temperature": 0.0, "max_tokens": 5}
    assert question.extra == {}


def test_a_completion() -> None:
    body = {"prompt": "Once", "max_tokens": 5, "echo": False, "suffix": None}
    question = read_openai_line(changed(url="/v1/completions", body=body))
    assert (question.messages, question.prompt) == (None, "Once")
    assert question.params == {"max_tokens": 5}


def test_log_probabilities_are_asked_for_as_each_endpoint_has_it() -> None:
    asked = {"logprobs": True, "top_logprobs": 2}
    assert read_openai_line(with_body(**asked)).params == asked
    body = {"prompt": "Once", "logprobs": 2}
    assert read_openai_line(changed(url="/v1/completions", body=body)).params == asked


def test_further_fields_beside_the_body_are_carried() -> None:
    assert read_openai_line(changed(source="page 3")).extra == {"source": "page 3"}


def test_the_model_is_told_and_need_not_be_there() -> None:
    assert read_openai_line(with_body(model="gpt-4o-mini")).model == "gpt-4o-mini"
    assert read_openai_line(with_body(model="absent")).model is None


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (changed(custom_id="absent"), "missing_required_parameter", "custom_id"),
        (changed(method=None), "missing_required_parameter", "method"),
        (changed(url="absent"), "missing_required_parameter", "url"),
        (changed(body="absent"), "missing_required_parameter", "body"),
        (changed(method="GET"), "invalid_value", "method"),
        (changed(method=["POST"]), "invalid_value", "method"),
        (changed(url="/v1/embeddings"), "invalid_value", "url"),
        (changed(url={}), "invalid_value", "url"),
        (changed(body=[]), "invalid_type", "body"),
        (with_body(model=5), "invalid_type", "model"),
        (with_body(messages="absent"), "missing_required_parameter", "messages"),
        (with_body(messages=[]), "invalid_value", "messages"),
        (with_body(prompt="x"), "unknown_parameter", "prompt"),
        (with_body(temprature=1), "unknown_parameter", "temprature"),
        (with_body(stream=True), "unsupported_parameter", "stream"),
        (with_body(best_of=2), "unsupported_parameter", "best_of"),
        (with_body(logprobs=2), "invalid_type", "logprobs"),
        (with_body(json_schema={"type": "objekt"}), "invalid_json_schema", "json_schema"),
        (with_body(reasoning_effort="high"), "unsupported_parameter", "reasoning_effort"),
        (with_body(max_tokens=0), "invalid_value", "max_tokens"),
        (changed(url="/v1/completions"), "missing_required_parameter", "prompt"),
    ],
)
def test_other_lines_are_refused(line: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(LineError) as caught:
        read_openai_line(line)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)


def test_a_misspelled_field_gets_a_suggestion() -> None:
    with pytest.raises(LineError, match="Did you mean 'temperature'"):
        read_openai_line(with_body(temprature=1))

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from batchgen.core.endpoints import RESPONSES
from batchgen.core.rows import BadRow, InputRow
from batchgen.requests.lines import LineParser
from batchgen.requests.openai.response_fields import LOGPROBS, RESPONSE_FIELDS
from tests.support.repository import ROOT

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PAGE = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")


def parsed(defaults: dict[str, Any] | None = None, /, **body: Any) -> InputRow | BadRow:
    body = {"model": "m", "input": "Why?", **body}
    line = {"custom_id": "a", "method": "POST", "url": RESPONSES, "body": body}
    return LineParser(defaults or {}, "m").parse(json.dumps(line).encode(), 0)


def read(defaults: dict[str, Any] | None = None, /, **body: Any) -> InputRow:
    row = parsed(defaults, **body)
    assert isinstance(row, InputRow), row
    return row


def test_a_request_is_a_chat_of_the_responses_endpoint() -> None:
    row = read(instructions="Be short.", max_output_tokens=5, temperature=0, seed=3, top_k=1)
    assert row.endpoint == RESPONSES
    assert row.messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Why?"},
    ]
    assert (row.params.max_tokens, row.params.temperature) == (5, 0.0)
    assert (row.params.seed, row.params.top_k) == (3, 1)


def test_what_the_answer_repeats_is_kept() -> None:
    text = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    row = read({"temperature": 0.5}, instructions="Be short.", metadata={"k": "v"}, text=text)
    assert row.params.json_schema is not None
    assert json.loads(row.params.json_schema) == SCHEMA
    assert row.echo == {
        "instructions": "Be short.",
        "metadata": {"k": "v"},
        "text": text,
        "max_output_tokens": None,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_logprobs": 0,
    }


@pytest.mark.parametrize(
    ("body", "logprobs", "top"),
    [
        ({"include": [LOGPROBS]}, True, 0),
        ({"top_logprobs": 3}, True, 3),
        ({"include": [LOGPROBS], "top_logprobs": 0}, True, 0),
        ({"include": ["reasoning.encrypted_content"]}, False, 0),
    ],
)
def test_log_probabilities(body: dict[str, Any], logprobs: bool, top: int) -> None:
    params = read(**body).params
    assert (params.logprobs, params.top_logprobs) == (logprobs, top)


def test_a_text_format_takes_back_the_jobs_grammar() -> None:
    job = {"json_schema": SCHEMA}
    assert read(job).params.json_schema
    assert read(job, text={"verbosity": "medium"}).params.json_schema
    assert read(job, text={"format": {"type": "text"}}).params.json_schema is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("background", False),
        ("store", False),
        ("previous_response_id", None),
        ("conversation", None),
        ("stream", False),
        ("tools", []),
        ("tool_choice", "auto"),
        ("truncation", "disabled"),
        ("reasoning", {"effort": None, "summary": None}),
        ("parallel_tool_calls", True),
        ("service_tier", "flex"),
        ("user", "u"),
    ],
)
def test_values_that_change_nothing_are_accepted(name: str, value: Any) -> None:
    assert read(**{name: value}).params == read().params


@pytest.mark.parametrize(
    ("name", "value", "code", "param"),
    [
        ("background", True, "unsupported_parameter", "background"),
        ("store", True, "unsupported_parameter", "store"),
        ("previous_response_id", "resp_1", "unsupported_parameter", "previous_response_id"),
        ("conversation", "conv_1", "unsupported_parameter", "conversation"),
        ("prompt", {"id": "pmpt_1"}, "unsupported_parameter", "prompt"),
        ("stream", True, "unsupported_parameter", "stream"),
        ("n", 2, "unsupported_parameter", "n"),
        ("truncation", "auto", "unsupported_parameter", "truncation"),
        ("tool_choice", "required", "unsupported_parameter", "tool_choice"),
        (
            "tools",
            [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
            "unsupported_parameter",
            "tools",
        ),
        ("reasoning", {"effort": "high"}, "unsupported_parameter", "reasoning"),
        ("include", ["file_search_call.results"], "unsupported_parameter", "include"),
        ("include", [["x"]], "unsupported_parameter", "include"),
        ("include", LOGPROBS, "invalid_type", "include"),
        ("max_tokens", 5, "unknown_parameter", "max_tokens"),
        ("messages", [], "unknown_parameter", "messages"),
        ("response_format", {"type": "text"}, "unknown_parameter", "response_format"),
        ("max_output_tokens", 0, "invalid_value", "max_output_tokens"),
        ("metadata", {"k": 1}, "invalid_type", "metadata"),
        ("text", "x", "invalid_type", "text"),
        ("text", {"verbosity": "low"}, "unsupported_parameter", "text.verbosity"),
        ("text", {"format": {"type": "xml"}}, "invalid_value", "text.format.type"),
        (
            "text",
            {"format": {"type": "json_schema", "name": "x"}},
            "missing_required_parameter",
            "text.format.schema",
        ),
        ("input", None, "missing_required_parameter", "input"),
        ("instuctions", "x", "unknown_parameter", "instuctions"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    name: str, value: Any, code: str, param: str
) -> None:
    row = parsed(**{name: value})
    assert isinstance(row, BadRow)
    assert (row.error.code, row.error.param) == (code, param)


def test_every_field_of_the_official_client_is_known() -> None:
    named = set(ResponseCreateParamsBase.__annotations__) - {"input", "instructions", "model"}
    assert named - RESPONSE_FIELDS.keys() == set()


def test_what_is_not_served_is_documented() -> None:
    of_responses = (
        "background previous_response_id conversation prompt store context_management truncation "
        "include tools tool_choice reasoning moderation image access_programs background_options"
    )
    assert [name for name in of_responses.split() if f"`{name}`" not in PAGE] == []

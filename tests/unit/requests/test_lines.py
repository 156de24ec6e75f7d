from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.params import SamplingParams
from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import InvalidParameter
from batchgen.requests.lines import MAX_ID_LENGTH, LineParser, check_defaults, parse_line


def parse(line: Any, **defaults: Any) -> InputRow | BadRow:
    return parse_line(json.dumps(line).encode(), row=6, defaults=defaults, model="m")


def read(line: Any, **defaults: Any) -> InputRow:
    row = parse(line, **defaults)
    assert isinstance(row, InputRow)
    return row


def test_a_row_sets_what_it_sets_and_the_job_the_rest() -> None:
    row = read({"prompt": "x", "temperature": 0.5}, temperature=0, max_tokens=9, stop=["END"])
    assert row.params == SamplingParams(temperature=0.5, max_tokens=9, stop=("END",))


def test_the_newer_name_of_a_field_overrides_the_jobs_older_one() -> None:
    assert read({"prompt": "x", "max_completion_tokens": 3}, max_tokens=9).params.max_tokens == 3


def test_a_rows_grammar_stands_in_for_the_jobs() -> None:
    row = read({"prompt": "x", "regex": "a"}, response_format={"type": "json_object"})
    assert (row.params.json_schema, row.params.regex) == (None, "a")
    row = read({"prompt": "x", "response_format": {"type": "text"}}, regex="a")
    assert (row.params.json_schema, row.params.regex) == (None, None)


@pytest.mark.parametrize(
    ("line", "defaults", "code", "param"),
    [
        ({"n": 3}, {"num_beams": 2}, "invalid_value", "n"),
        ({"num_beams": 2}, {"n": 3}, "invalid_value", "n"),
        ({"max_tokens": 5}, {"min_tokens": 6}, "invalid_value", "min_tokens"),
        ({"top_logprobs": 2}, {}, "invalid_value", "top_logprobs"),
        ({"json_schema": {}, "regex": "a"}, {}, "invalid_value", "regex"),
        ({"max_tokens": 8}, {}, "context_length_exceeded", "max_tokens"),
        ({"max_completion_tokens": 9}, {}, "context_length_exceeded", "max_tokens"),
        ({"min_tokens": 8}, {}, "context_length_exceeded", "min_tokens"),
    ],
)
def test_parameters_must_agree_with_each_other_the_jobs_and_the_context(
    line: dict[str, Any], defaults: dict[str, Any], code: str, param: str
) -> None:
    parser = LineParser(defaults, context=8)
    row = parser.parse(json.dumps({"prompt": "x", "id": "a", **line}).encode(), 0)
    assert isinstance(row, BadRow)
    assert (row.custom_id, row.error.code, row.error.param) == ("a", code, param)


def test_what_just_fits_the_context() -> None:
    for line in (b'{"prompt": "x", "max_tokens": 7}', b'{"prompt": "x"}'):
        assert isinstance(LineParser({}, context=8).parse(line, 0), InputRow)


def test_defaults_must_fit_the_context() -> None:
    assert check_defaults({"max_tokens": 7}, 8).max_tokens == 7
    for check in (check_defaults, lambda params, context: LineParser(params, "m", context)):
        with pytest.raises(InvalidParameter, match="maximum context length is 8 tokens") as caught:
            check({"max_tokens": 8}, 8)
        assert caught.value.param == "max_tokens"


def test_null_leaves_the_jobs_value() -> None:
    assert read({"prompt": "x", "seed": None}, seed=5).params.seed == 5


@pytest.mark.parametrize(
    ("line", "custom_id"),
    [
        ({"prompt": "x"}, "row-6"),
        ({"prompt": "x", "id": None}, "row-6"),
        ({"prompt": "x", "id": "a"}, "a"),
        ({"prompt": "x", "id": 17}, "17"),
        ({"prompt": "x", "id": "a", "custom_id": "b"}, "b"),
        ({"prompt": "x", "id": "i" * MAX_ID_LENGTH}, "i" * MAX_ID_LENGTH),
    ],
)
def test_a_row_is_called_as_given_or_by_its_number(line: Any, custom_id: str) -> None:
    assert read(line).custom_id == custom_id


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("id", "", "invalid_value"),
        ("id", "i" * (MAX_ID_LENGTH + 1), "invalid_value"),
        ("id", True, "invalid_type"),
        ("id", ["a"], "invalid_type"),
        ("custom_id", 17, "invalid_type"),
    ],
)
def test_an_id_that_cannot_be_used(name: str, value: Any, code: str) -> None:
    row = parse({"prompt": "x", name: value})
    assert isinstance(row, BadRow)
    assert (row.custom_id, row.error.code, row.error.param) == ("row-6", code, name)


def test_a_bad_row_keeps_its_id() -> None:
    row = parse({"prompt": 5, "id": "a"})
    assert isinstance(row, BadRow)
    assert (row.row, row.custom_id, row.error.code) == (6, "a", "invalid_type")


def test_both_kinds_of_line() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert read(line).messages == body["messages"]
    assert read({"prompt": "Once", "topic": [1, {"x": None}]}).extra == {"topic": [1, {"x": None}]}
    assert read(line).other_model is None
    other = read({**line, "body": {**body, "model": "other"}})
    assert (other.messages, other.other_model) == (body["messages"], "other")


def test_no_prompt_in_a_rows_text() -> None:
    assert "secret" not in repr(read({"prompt": "secret", "secret": 1}))


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps(text).encode()))
def test_any_bytes_become_a_row(raw: bytes) -> None:
    row = parse_line(raw, row=3, defaults={}, model=None)
    assert isinstance(row, InputRow | BadRow)
    assert row.row == 3


def test_defaults_are_checked_once() -> None:
    assert check_defaults({}) == SamplingParams()
    assert check_defaults({"max_tokens": 5, "stop": "a", "top_k": -1, "seed": None}) == (
        SamplingParams(max_tokens=5, stop=("a",))
    )


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"temperature": 3}, "'temperature' must be from 0 to 2, not 3"),
        ({"best_of": 2}, "'best_of' is not served"),
        ({"max_token": 5}, "no parameter 'max_token'. Did you mean 'max_tokens'?"),
        ({"colour": 5}, "Served: allowed_token_ids, early_stopping, frequency_penalty"),
        ({"json_schema": {"type": "objekt"}}, "'json_schema' cannot be served: Invalid type"),
        ({"n": 4, "num_beams": 2}, "'n' is 4, of 2 beams"),
        ({"top_logprobs": 2}, "'top_logprobs' needs 'logprobs'"),
    ],
)
def test_defaults_that_cannot_be_used(params: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_defaults(params)
    assert said in caught.value.message
    assert caught.value.param == next(iter(params))
    with pytest.raises(InvalidParameter):
        LineParser(params)

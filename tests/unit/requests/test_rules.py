from __future__ import annotations

from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.requests.rules import check_together, filled
from batchgen.requests.values.line_error import LineError

SCHEMA = '{"type":"object"}'


def test_a_row_sets_what_it_sets_and_the_job_the_rest() -> None:
    params = filled({"n": 4, "seed": 1}, {"seed": 2, "stop": ("a",)})
    assert params == SamplingParams(n=4, seed=2, stop=("a",))


@pytest.mark.parametrize(
    ("job", "own", "schema", "regex"),
    [
        ({"regex": "a"}, {}, None, "a"),
        ({"regex": "a"}, {"json_schema": SCHEMA}, SCHEMA, None),
        ({"json_schema": SCHEMA}, {"regex": "a"}, None, "a"),
        ({"json_schema": SCHEMA}, {"json_schema": "{}"}, "{}", None),
        ({"regex": "a"}, {"json_schema": None}, None, None),
        ({}, {"json_schema": SCHEMA, "regex": "a"}, SCHEMA, "a"),
    ],
)
def test_a_rows_grammar_stands_in_for_the_jobs(
    job: dict[str, Any], own: dict[str, Any], schema: str | None, regex: str | None
) -> None:
    params = filled(job, own)
    assert (params.json_schema, params.regex) == (schema, regex)


def test_a_row_without_logprobs_has_no_alternatives_either() -> None:
    job = {"logprobs": True, "top_logprobs": 5}
    assert filled(job, {"logprobs": False}).top_logprobs == 0
    assert filled(job, {"top_logprobs": 2}) == SamplingParams(logprobs=True, top_logprobs=2)
    assert filled(job, {"seed": 1}).top_logprobs == 5


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"n": 128},
        {"n": 4, "num_beams": 4},
        {"n": 1, "num_beams": 4},
        {"min_tokens": 5},
        {"min_tokens": 5, "max_tokens": 5},
        {"logprobs": True, "top_logprobs": 20},
        {"json_schema": SCHEMA},
        {"regex": "a"},
        {"max_tokens": 99},
        {"min_tokens": 99},
    ],
)
def test_parameters_that_agree(params: dict[str, Any]) -> None:
    check_together(SamplingParams(**params), 100)
    check_together(SamplingParams(**params), None)


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"n": 3, "num_beams": 2}, "invalid_value", "n"),
        ({"min_tokens": 6, "max_tokens": 5}, "invalid_value", "min_tokens"),
        ({"top_logprobs": 1}, "invalid_value", "top_logprobs"),
        ({"json_schema": SCHEMA, "regex": "a"}, "invalid_value", "regex"),
        ({"max_tokens": 100}, "context_length_exceeded", "max_tokens"),
        ({"max_tokens": 200, "min_tokens": 200}, "context_length_exceeded", "max_tokens"),
        ({"min_tokens": 100}, "context_length_exceeded", "min_tokens"),
    ],
)
def test_parameters_that_contradict_each_other(
    params: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(LineError) as caught:
        check_together(SamplingParams(**params), 100)
    assert (caught.value.error.code, caught.value.error.param) == (code, param)


def test_a_context_that_is_not_known_bounds_nothing() -> None:
    check_together(SamplingParams(max_tokens=1 << 20))

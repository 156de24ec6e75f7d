from __future__ import annotations

from typing import Any

import pytest

from batchgen.io.fields import (
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_TOKENS,
    OPENAI_FIELDS,
    SAMPLING,
    SHORTHAND_FIELDS,
    read_sampling,
    suggestion,
)
from batchgen.io.line_error import LineError
from batchgen.io.params import SamplingParams


def known(**values: Any) -> dict[str, Any]:
    result, unknown = read_sampling(values, SHORTHAND_FIELDS)
    assert not unknown
    return result


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("max_tokens", 1, 1),
        ("max_tokens", MAX_TOKENS, MAX_TOKENS),
        ("temperature", 0, 0.0),
        ("temperature", 2.0, 2.0),
        ("top_p", 1, 1.0),
        ("top_p", 1e-9, 1e-9),
        ("top_k", 40, 40),
        ("top_k", 0, 0),
        ("top_k", -1, 0),
        ("seed", -(1 << 63), -(1 << 63)),
        ("seed", (1 << 63) - 1, (1 << 63) - 1),
        ("stop", "END", ("END",)),
        ("stop", ["a", "b"], ("a", "b")),
        ("stop", [], ()),
        ("stop", ["x" * MAX_STOP_LENGTH] * MAX_STOP_STRINGS, ("x" * MAX_STOP_LENGTH,) * 16),
        ("ignore_eos", True, True),
        ("n", 1, 1),
        ("return_token_ids", False, False),
    ],
)
def test_values_in_bounds_are_read(name: str, given: Any, read: Any) -> None:
    assert known(**{name: given}) == {name: read}
    assert type(known(**{name: given})[name]) is type(read)


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("max_tokens", 0, "invalid_value"),
        ("max_tokens", -5, "invalid_value"),
        ("max_tokens", 10**9, "invalid_value"),
        ("max_tokens", 16.0, "invalid_type"),
        ("max_tokens", "16", "invalid_type"),
        ("max_tokens", True, "invalid_type"),
        ("max_completion_tokens", 0, "invalid_value"),
        ("temperature", -0.1, "invalid_value"),
        ("temperature", 2.1, "invalid_value"),
        ("temperature", float("nan"), "invalid_value"),
        ("temperature", "0.7", "invalid_type"),
        ("temperature", True, "invalid_type"),
        ("top_p", 0, "invalid_value"),
        ("top_p", 1.01, "invalid_value"),
        ("top_k", -2, "invalid_value"),
        ("seed", 1 << 63, "invalid_value"),
        ("seed", 1.5, "invalid_type"),
        ("stop", 5, "invalid_type"),
        ("stop", ["a", 5], "invalid_type"),
        ("stop", "", "invalid_value"),
        ("stop", ["a", ""], "invalid_value"),
        ("stop", "x" * (MAX_STOP_LENGTH + 1), "invalid_value"),
        ("stop", ["x"] * (MAX_STOP_STRINGS + 1), "invalid_value"),
        ("stop", ["x"] * 100_000, "invalid_value"),
        ("ignore_eos", 1, "invalid_type"),
        ("n", 0, "invalid_value"),
        ("n", 2, "unsupported_parameter"),
        ("n", 10**6, "invalid_value"),
        ("logprobs", True, "unsupported_parameter"),
        ("logprobs", 3, "unsupported_parameter"),
        ("tools", [{}], "unsupported_parameter"),
        ("response_format", {"type": "json_object"}, "unsupported_parameter"),
        ("frequency_penalty", 0.5, "unsupported_parameter"),
        ("num_beams", 4, "unsupported_parameter"),
        ("stream", True, "unsupported_parameter"),
        ("stream", 0, "unsupported_parameter"),
        ("max_new_tokens", 5, "unknown_parameter"),
    ],
)
def test_other_values_are_refused_by_name(name: str, given: Any, code: str) -> None:
    with pytest.raises(LineError) as caught:
        known(**{name: given})
    error = caught.value.error
    assert (error.code, error.param) == (code, name)
    assert f"'{name}'" in error.message


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("frequency_penalty", 0.0),
        ("logit_bias", {}),
        ("logprobs", False),
        ("repetition_penalty", 1.0),
        ("response_format", {"type": "text"}),
        ("stream", False),
        ("tools", []),
        ("tool_choice", "none"),
    ],
)
def test_a_neutral_value_changes_nothing(name: str, neutral: Any) -> None:
    assert known(**{name: neutral}) == {}


@pytest.mark.parametrize("name", OPENAI_FIELDS)
def test_null_means_not_set(name: str) -> None:
    assert read_sampling({name: None}, OPENAI_FIELDS) == ({}, {})


def test_every_parameter_of_a_row_can_be_set() -> None:
    assert set(SamplingParams.__struct_fields__) == set(SAMPLING) - {"max_completion_tokens"}


def test_openai_fields_that_change_nothing_are_known_there_only() -> None:
    values = {"user": "u-1", "metadata": {"k": "v"}, "store": True, "service_tier": "flex"}
    assert read_sampling(values, OPENAI_FIELDS) == ({}, {})
    assert read_sampling(values, SHORTHAND_FIELDS) == ({}, values)


def test_the_newer_name_of_max_tokens_is_the_same_field() -> None:
    assert known(max_completion_tokens=8) == {"max_tokens": 8}
    assert known(max_completion_tokens=8, max_tokens=8) == {"max_tokens": 8}
    with pytest.raises(LineError, match="differ"):
        known(max_completion_tokens=8, max_tokens=9)


def test_near_misses_get_a_suggestion() -> None:
    assert suggestion("temprature", SAMPLING) == " Did you mean 'temperature'?"
    assert suggestion("colour", SAMPLING) == ""
    assert suggestion("x" * 1_000_000, SAMPLING) == ""

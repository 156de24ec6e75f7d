from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.requests.fields import (
    ALIASES,
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    MAX_TOKENS,
    SAMPLING,
    SHORTHAND_FIELDS,
    read_sampling,
)
from batchgen.requests.values.checks import Check
from batchgen.requests.values.grammars import ANY_OBJECT
from batchgen.requests.values.line_error import LineError
from tests.support.repository import ROOT

DOCUMENT = ROOT / "docs" / "parameters.md"
INT_SCHEMA = {"type": "integer"}


def known(fields: Mapping[str, Check] = SHORTHAND_FIELDS, /, **values: Any) -> dict[str, Any]:
    result, unknown = read_sampling(values, fields)
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
        ("min_p", 0, 0.0),
        ("min_p", 1, 1.0),
        ("repetition_penalty", 1e-9, 1e-9),
        ("repetition_penalty", 10, 10.0),
        ("presence_penalty", -2, -2.0),
        ("frequency_penalty", 2, 2.0),
        ("logit_bias", {"50256": -100}, {50256: -100.0}),
        ("allowed_token_ids", [0, 7], (0, 7)),
        ("allowed_token_ids", [7] * 65_536, (7,) * 65_536),
        ("seed", -(1 << 63), -(1 << 63)),
        ("seed", (1 << 63) - 1, (1 << 63) - 1),
        ("min_tokens", 0, 0),
        ("stop", "END", ("END",)),
        ("stop_token_ids", [2] * 128, (2,) * 128),
        ("stop_token_ids", [], ()),
        ("ignore_eos", True, True),
        ("n", 1, 1),
        ("n", 128, 128),
        ("num_beams", 64, 64),
        ("length_penalty", -10, -10.0),
        ("length_penalty", 0.7, 0.7),
        ("early_stopping", True, True),
        ("early_stopping", "never", "never"),
        ("logprobs", True, True),
        ("top_logprobs", 20, 20),
        ("prompt_logprobs", 0, 0),
        ("json_schema", INT_SCHEMA, '{"type":"integer"}'),
        ("regex", "a|b", "a|b"),
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
        ("max_completion_tokens", 0, "invalid_value"),
        ("temperature", -0.1, "invalid_value"),
        ("temperature", 2.1, "invalid_value"),
        ("top_p", 0, "invalid_value"),
        ("top_p", 1.01, "invalid_value"),
        ("top_k", -2, "invalid_value"),
        ("min_p", -0.1, "invalid_value"),
        ("min_p", 1.1, "invalid_value"),
        ("repetition_penalty", 0, "invalid_value"),
        ("repetition_penalty", 10.1, "invalid_value"),
        ("presence_penalty", 2.1, "invalid_value"),
        ("frequency_penalty", -2.1, "invalid_value"),
        ("logit_bias", {"a": 1}, "invalid_value"),
        ("allowed_token_ids", [], "invalid_value"),
        ("allowed_token_ids", [7] * 65_537, "invalid_value"),
        ("allowed_token_ids", [-1], "invalid_value"),
        ("seed", 1 << 63, "invalid_value"),
        ("min_tokens", -1, "invalid_value"),
        ("min_tokens", MAX_TOKENS + 1, "invalid_value"),
        ("stop", ["x"] * 100_000, "invalid_value"),
        ("stop_token_ids", [2] * 129, "invalid_value"),
        ("ignore_eos", 1, "invalid_type"),
        ("n", 0, "invalid_value"),
        ("n", 129, "invalid_value"),
        ("num_return_sequences", 129, "invalid_value"),
        ("num_beams", 0, "invalid_value"),
        ("num_beams", 65, "invalid_value"),
        ("length_penalty", 10.5, "invalid_value"),
        ("early_stopping", "sometimes", "invalid_value"),
        ("logprobs", 21, "invalid_value"),
        ("logprobs", "yes", "invalid_type"),
        ("top_logprobs", 21, "invalid_value"),
        ("top_logprobs", True, "invalid_type"),
        ("prompt_logprobs", -1, "invalid_value"),
        ("prompt_logprobs", False, "invalid_type"),
        ("json_schema", {"type": "objekt"}, "invalid_json_schema"),
        ("guided_json", {"type": "objekt"}, "invalid_json_schema"),
        ("regex", "(", "invalid_value"),
        ("guided_regex", "(", "invalid_value"),
        ("response_format", "json", "invalid_type"),
        ("guided_choice", ["a"], "unsupported_parameter"),
        ("best_of", 2, "unsupported_parameter"),
        ("tools", [{}], "unsupported_parameter"),
        ("stream", True, "unsupported_parameter"),
        ("stream", 0, "unsupported_parameter"),
        ("max_new_tokens", 5, "unknown_parameter"),
        ("use_beam_search", True, "unknown_parameter"),
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
        ("best_of", 1),
        ("stream", False),
        ("tools", []),
        ("tool_choice", "none"),
        ("use_beam_search", False),
    ],
)
def test_a_neutral_value_changes_nothing(name: str, neutral: Any) -> None:
    assert known(**{name: neutral}) == {}


@pytest.mark.parametrize("name", CHAT_FIELDS)
def test_null_means_not_set(name: str) -> None:
    assert read_sampling({name: None}, CHAT_FIELDS) == ({}, {})


def test_every_parameter_of_a_row_can_be_set() -> None:
    assert set(SamplingParams.__struct_fields__) == set(SAMPLING)


def test_openai_fields_that_change_nothing_are_known_there_only() -> None:
    values = {"user": "u-1", "metadata": {"k": "v"}, "store": True, "service_tier": "flex"}
    for fields in (CHAT_FIELDS, COMPLETION_FIELDS):
        assert read_sampling(values, fields) == ({}, {})
    assert read_sampling(values, SHORTHAND_FIELDS) == ({}, values)


@pytest.mark.parametrize(
    ("name", "given", "sets"),
    [
        ("max_completion_tokens", 8, {"max_tokens": 8}),
        ("num_return_sequences", 3, {"n": 3}),
        ("guided_json", INT_SCHEMA, {"json_schema": '{"type":"integer"}'}),
        ("guided_regex", "a", {"regex": "a"}),
        ("response_format", {"type": "json_object"}, {"json_schema": ANY_OBJECT}),
        ("response_format", {"type": "text"}, {"json_schema": None}),
        ("structured_outputs", {"regex": "a"}, {"regex": "a"}),
        ("logprobs", 0, {"logprobs": True, "top_logprobs": 0}),
        ("logprobs", 5, {"logprobs": True, "top_logprobs": 5}),
    ],
)
def test_other_names_and_forms(name: str, given: Any, sets: dict[str, Any]) -> None:
    assert known(**{name: given}) == sets
    assert known(COMPLETION_FIELDS, **{name: given}) == sets


def test_a_chat_counts_its_alternatives_elsewhere() -> None:
    assert known(CHAT_FIELDS, logprobs=True, top_logprobs=3) == {
        "logprobs": True,
        "top_logprobs": 3,
    }
    with pytest.raises(LineError, match="'top_logprobs'") as caught:
        known(CHAT_FIELDS, logprobs=3)
    assert (caught.value.error.code, caught.value.error.param) == ("invalid_type", "logprobs")
    with pytest.raises(LineError):
        known(CHAT_FIELDS, logprobs="yes")


def test_two_names_of_a_parameter_must_agree() -> None:
    assert known(max_completion_tokens=8, max_tokens=8) == {"max_tokens": 8}
    assert known(json_schema=INT_SCHEMA, guided_json='{"type":"integer"}') == {
        "json_schema": '{"type":"integer"}'
    }
    for values in (
        {"max_completion_tokens": 8, "max_tokens": 9},
        {"max_tokens": 9, "max_completion_tokens": 8},
        {"logprobs": 3, "top_logprobs": 2},
        {"logprobs": 3, "top_logprobs": 0},
        {"guided_json": INT_SCHEMA, "response_format": {"type": "json_object"}},
        {"n": 2, "num_return_sequences": 3},
    ):
        with pytest.raises(LineError, match="different values") as caught:
            known(**values)
        assert caught.value.error.param == list(values)[1]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_response_format_of_text_asks_for_nothing(reverse: bool) -> None:
    values = {"response_format": {"type": "text"}, "guided_json": INT_SCHEMA}
    ordered = dict(reversed(values.items())) if reverse else values
    assert known(**ordered) == {"json_schema": '{"type":"integer"}'}


def documented() -> dict[str, list[str]]:
    """Return {name: cells} of the tables of parameters; one endpoint's own fields follow them."""
    text, _, _ = DOCUMENT.read_text(encoding="utf-8").partition("\n## Requests to `/v1/responses`")
    lines = text.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def default_of(name: str) -> str:
    value = SamplingParams.__struct_defaults__[SamplingParams.__struct_fields__.index(name)]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float | int) else "none"


@pytest.mark.parametrize("name", SAMPLING)
def test_a_parameter_is_documented_as_it_is(name: str) -> None:
    field, (kind, bounds, default, meaning) = SAMPLING[name], documented()[name]
    assert (kind, bounds, default) == (field.kind, field.bounds or "any", default_of(name))
    assert len(meaning) > 10


def test_other_names_are_documented_and_no_others() -> None:
    assert set(documented()) == set(SAMPLING) | set(ALIASES)

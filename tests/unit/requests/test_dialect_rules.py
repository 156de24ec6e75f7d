from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import fields

from batchgen.core.dialects import Dialect
from batchgen.core.params import SamplingParams
from batchgen.core.rows import BadRow
from batchgen.errors import InvalidParameter
from batchgen.requests.dialect_rules import TAKEN, untaken
from batchgen.requests.lines import LineParser, check_defaults
from batchgen.requests.plain_lines import PlainLines

#: {parameter: a value that is not its default}
SET: dict[str, Any] = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "repetition_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"5": 1},
    "allowed_token_ids": [5],
    "seed": 5,
    "min_tokens": 1,
    "stop": ["x"],
    "stop_token_ids": [5],
    "ignore_eos": True,
    "n": 2,
    "num_beams": 2,
    "length_penalty": 0.5,
    "early_stopping": True,
    "logprobs": True,
    "top_logprobs": 2,
    "prompt_logprobs": 2,
    "json_schema": {"type": "object"},
    "regex": "a",
    "return_token_ids": True,
}


def line(**params: Any) -> bytes:
    others = {"logprobs": True} if "top_logprobs" in params else {}
    return json.dumps({"messages": [{"role": "user", "content": "a"}], **others, **params}).encode()


def test_every_parameter_is_tried_here() -> None:
    assert set(SET) == {field.name for field in fields(SamplingParams)}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("name", SET)
def test_a_row_is_refused_for_what_the_dialect_does_not_take(dialect: Dialect, name: str) -> None:
    parser = LineParser({}, dialect=dialect)
    raw = line(**{name: SET[name]})
    row = parser.parse(raw, 0)
    assert isinstance(row, BadRow) == (name not in TAKEN[dialect])
    if isinstance(row, BadRow):
        assert (row.error.code, row.error.param) == ("unsupported_parameter", name)
        assert PlainLines(parser).id_of(raw, 0) is None


@pytest.mark.parametrize("dialect", Dialect)
def test_a_job_is_refused_for_what_the_dialect_does_not_take(dialect: Dialect) -> None:
    for name in untaken(dialect):
        with pytest.raises(InvalidParameter, match=name) as refused:
            check_defaults({name: SET[name]}, None, dialect)
        assert refused.value.param == name


def test_a_value_that_changes_nothing_is_taken() -> None:
    check_defaults({"num_beams": 1, "top_k": 0, "n": 1}, None, Dialect.LLAMA_CPP)


def test_a_raw_prompt_needs_max_tokens_where_it_would_be_cut() -> None:
    raw = b'{"prompt": "a"}'
    for dialect in (Dialect.OPENAI, Dialect.SGLANG):
        parser = LineParser({}, dialect=dialect)
        row = parser.parse(raw, 0)
        assert isinstance(row, BadRow)
        assert row.error.param == "max_tokens"
        assert PlainLines(parser).id_of(raw, 0) is None
        assert not isinstance(LineParser({"max_tokens": 9}, dialect=dialect).parse(raw, 0), BadRow)
    assert not isinstance(LineParser({}, dialect=Dialect.VLLM).parse(raw, 0), BadRow)


def test_plain_chats_stay_plain() -> None:
    assert (
        PlainLines(LineParser({}, dialect=Dialect.OPENAI)).id_of(line(max_tokens=5), 3) == "row-3"
    )

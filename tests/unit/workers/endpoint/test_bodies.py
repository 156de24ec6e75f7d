from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.core.dialects import Dialect
from batchgen.core.rows import GenerationRequest, RowError
from batchgen_workers.endpoint.bodies import Question, question_of
from tests.unit.workers.endpoint.conftest import at, request


def body(asked: GenerationRequest, dialect: Dialect) -> dict[str, Any]:
    question = question_of(asked, at(dialect))
    assert isinstance(question, Question), question
    found: dict[str, Any] = json.loads(question.body)
    return found


def test_a_chat_and_a_raw_prompt_have_paths_of_their_own() -> None:
    chat = question_of(request(max_tokens=1), at(Dialect.OPENAI))
    raw = question_of(request("hi", max_tokens=1), at(Dialect.OPENAI))
    assert isinstance(chat, Question)
    assert isinstance(raw, Question)
    assert (chat.path, raw.path) == ("/chat/completions", "/completions")
    assert body(request([1, 2], max_tokens=1), Dialect.OPENAI)["prompt"] == [1, 2]


def test_openai_gets_only_what_a_row_sets() -> None:
    assert body(request(), Dialect.OPENAI) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "seed": None,
    }


@pytest.mark.parametrize(
    ("dialect", "repetition", "all_tokens"),
    [
        (Dialect.VLLM, "repetition_penalty", -1),
        (Dialect.SGLANG, "repetition_penalty", -1),
        (Dialect.LLAMA_CPP, "repeat_penalty", 0),
    ],
)
def test_servers_with_other_defaults_get_ours(
    dialect: Dialect, repetition: str, all_tokens: int
) -> None:
    sent = body(request(temperature=0), dialect)
    samplers = {"temperature": 0, "top_p": 1, "top_k": all_tokens, "min_p": 0, repetition: 1}
    assert sent.items() >= samplers.items()
    assert "seed" not in sent  # greedy


def test_llama_cpp_gets_a_seed_that_it_can_keep() -> None:
    assert body(request(seed=2**62 + 5), Dialect.LLAMA_CPP)["seed"] == 5
    assert body(request(seed=2**62 + 5), Dialect.VLLM)["seed"] == 2**62 + 5


def test_a_raw_prompt_without_max_tokens_is_not_cut_at_sixteen() -> None:
    assert body(request("hi"), Dialect.VLLM)["max_tokens"] is None
    refused = question_of(request("hi"), at(Dialect.OPENAI))
    assert isinstance(refused, RowError)
    assert refused.param == "max_tokens"


def test_log_probabilities_have_two_forms() -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 1}
    assert body(request(**asked), Dialect.VLLM)["top_logprobs"] == 2
    assert body(request("hi", **asked), Dialect.VLLM)["logprobs"] == 2


def test_a_schema_and_a_regular_expression_are_passed_on() -> None:
    schema = '{"type":"object"}'
    sent = body(request(json_schema=schema), Dialect.OPENAI)
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (
        body(request("hi", json_schema=schema, max_tokens=9), Dialect.SGLANG)["json_schema"]
        == schema
    )
    assert body(request(regex="a+"), Dialect.VLLM)["structured_outputs"] == {"regex": "a+"}
    assert body(request(regex="a+"), Dialect.SGLANG)["regex"] == "a+"


def test_arguments_of_calls_are_text_again() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    (sent,) = body(request(messages=messages), Dialect.OPENAI)["messages"]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"a": 1}


@pytest.mark.parametrize(
    ("dialect", "params"),
    [
        (Dialect.OPENAI, {"top_k": 5}),
        (Dialect.VLLM, {"num_beams": 2}),
        (Dialect.SGLANG, {"prompt_logprobs": 1}),
        (Dialect.LLAMA_CPP, {"n": 2}),
    ],
)
def test_what_a_dialect_does_not_take_is_refused_by_name(
    dialect: Dialect, params: dict[str, Any]
) -> None:
    refused = question_of(request(**params), at(dialect))
    assert isinstance(refused, RowError)
    assert (refused.code, refused.param) == ("unsupported_parameter", next(iter(params)))

from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen_workers.endpoint.answers import FILTERED, Unreadable, read_answer
from tests.unit.workers.endpoint.conftest import request

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def chat(*choices: dict[str, Any], **others: Any) -> bytes:
    return json.dumps({"model": "m", "choices": list(choices), "usage": USAGE, **others}).encode()


def said(text: str | None = "yes", index: int = 0, **others: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **others.pop("message", {})}
    return {"index": index, "message": message, "finish_reason": "stop", **others}


def test_choices_come_in_order_with_their_usage() -> None:
    body = chat(said("b", 1, finish_reason="length"), said("a", 0))
    answer = read_answer(body, request(n=2))
    assert [(each.text, each.finish_reason) for each in answer.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens) == (7, 4)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_stands_before_the_answer(name: str) -> None:
    answer = read_answer(chat(said("42", message={name: "hm"})), request())
    assert answer.choices[0].text == "<think>\nhm\n</think>\n\n42"


def test_log_probabilities_of_a_chat_and_a_completion_become_alike() -> None:
    entry = {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}],
    }
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 1}
    in_chat = read_answer(chat(said(logprobs={"content": [entry]})), request(**asked))
    older = {"tokens": ["é"], "token_logprobs": [-0.5], "top_logprobs": [{"é": -0.5}]}
    choice = {"index": 0, "text": "é", "finish_reason": "stop", "logprobs": older}
    in_completion = read_answer(chat(choice), request("hi", **asked))
    assert in_chat.choices[0].logprobs == in_completion.choices[0].logprobs
    assert json.loads(in_chat.choices[0].logprobs or "") == {"content": [entry], "refusal": None}
    assert in_chat.choices[0].score == -0.5


def test_log_probabilities_of_a_prompt_begin_with_its_token() -> None:
    place = {
        "5": {"logprob": -3.0, "rank": 9, "decoded_token": "b"},
        "7": {"logprob": -1.0, "rank": 1, "decoded_token": "a"},
    }
    answer = read_answer(chat(said(), prompt_logprobs=[None, place]), request(prompt_logprobs=1))
    first, second = json.loads(answer.choices[0].logprobs or "")["prompt"]
    assert first is None
    assert (second["token"], second["logprob"]) == ("b", -3.0)
    assert [each["token"] for each in second["top_logprobs"]] == ["a", "b"]


def test_an_answer_that_was_filtered_is_an_error() -> None:
    assert read_answer(chat(said(finish_reason="content_filter")), request()).error == FILTERED


@pytest.mark.parametrize(
    ("body", "params"),
    [
        (b"{", {}),
        (b"\xff", {}),
        (b"[" * 100_000, {}),
        (chat(), {}),
        (chat(said()), {"n": 2}),
        (chat(said(finish_reason="abort")), {}),
        (chat(said(finish_reason=None)), {}),
        (chat(said()), {"logprobs": True}),
        (chat(said()), {"return_token_ids": True}),
        (json.dumps({"choices": [{"message": 3}]}).encode(), {}),
    ],
)
def test_an_answer_that_lacks_something_is_unreadable(body: bytes, params: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read_answer(body, request(**params))

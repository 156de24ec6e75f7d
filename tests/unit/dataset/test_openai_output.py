from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.core.endpoints import CHAT, COMPLETIONS
from batchgen.core.rows import Choice, RowError, Usage
from batchgen.dataset.openai_output import openai_line
from batchgen.errors import InvalidParameter
from tests.support.result_rows import error_row, ok_row

ROW = ok_row(
    1,
    custom_id="request-2",
    model="M",
    request_id="req_c187b3",
    created_at=1_711_475_054_999_999,
    choices=[Choice(index=0, text="2 + 2 equals 4.", finish_reason="stop", score=-0.5)],
    usage=Usage(prompt_tokens=24, completion_tokens=15, cached_tokens=8),
)
USAGE = {
    "prompt_tokens": 24,
    "completion_tokens": 15,
    "total_tokens": 39,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def test_a_chat_answer_is_openais_line_exactly() -> None:
    assert openai_line(ROW, endpoint=CHAT) == {
        "id": "batch_req_c187b3",
        "custom_id": "request-2",
        "response": {
            "status_code": 200,
            "request_id": "req_c187b3",
            "body": {
                "id": "chatcmpl-c187b3",
                "object": "chat.completion",
                "created": 1711475054,
                "model": "M",
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant",
                            "content": "2 + 2 equals 4.",
                            "refusal": None,
                        },
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": USAGE,
                "system_fingerprint": None,
            },
        },
        "error": None,
    }


def test_a_completion_has_its_text_in_the_choice() -> None:
    body = openai_line(ROW, endpoint=COMPLETIONS)["response"]["body"]
    assert (body["id"], body["object"]) == ("cmpl-c187b3", "text_completion")
    assert body["choices"] == [
        {"index": 0, "text": "2 + 2 equals 4.", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"] == USAGE


LOGPROBS = {
    "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
    "refusal": None,
}
PROMPT = [None, {"token": "b", "logprob": -1.5, "bytes": [98], "top_logprobs": []}]


def choice_of(endpoint: str, **fields: Any) -> dict[str, Any]:
    """The one choice of a row, in the shape of an endpoint."""
    choice = Choice(index=0, text="a", finish_reason="length", **fields)
    row = ok_row(0, choices=[choice])
    (given,) = openai_line(row, endpoint=endpoint)["response"]["body"]["choices"]
    assert given["finish_reason"] == "length"
    return dict(given)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (CHAT, LOGPROBS),
        (
            COMPLETIONS,
            {
                "tokens": ["a"],
                "token_logprobs": [-0.5],
                "top_logprobs": None,
                "text_offset": [0],
            },
        ),
    ],
)
def test_logprobs_have_the_shape_of_the_endpoint(endpoint: str, expected: Any) -> None:
    given = choice_of(endpoint, logprobs=json.dumps(LOGPROBS))
    assert given["logprobs"] == expected
    assert "prompt_logprobs" not in given
    with_prompt = choice_of(endpoint, logprobs=json.dumps({**LOGPROBS, "prompt": PROMPT}))
    assert with_prompt == {**given, "prompt_logprobs": PROMPT}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_token_ids_and_score_are_given_where_they_were_asked_for(endpoint: str) -> None:
    plain = choice_of(endpoint, score=-2.5)
    assert choice_of(endpoint, score=-2.5, tokens=[5, 6]) == {
        **plain,
        "token_ids": [5, 6],
        "score": -2.5,
    }
    assert "score" not in plain


def test_every_choice_is_given() -> None:
    choices = [Choice(index=at, text=str(at), finish_reason="stop") for at in (0, 1, 2)]
    body = openai_line(ok_row(0, choices=choices), endpoint=CHAT)["response"]["body"]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["0", "1", "2"]


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_a_refused_request_has_its_error_in_the_response(endpoint: str) -> None:
    row = error_row(4, custom_id="request-5", request_id="0538a1cc")
    assert openai_line(row, endpoint=endpoint) == {
        "id": "batch_req_0538a1cc",
        "custom_id": "request-5",
        "response": {
            "status_code": 400,
            "request_id": "0538a1cc",
            "body": {
                "error": {
                    "message": "row 4 is too long",
                    "type": "invalid_request_error",
                    "param": "messages",
                    "code": "context_length_exceeded",
                }
            },
        },
        "error": None,
    }


@pytest.mark.parametrize("code", ["batch_expired", "batch_cancelled"])
def test_a_row_that_was_never_asked_has_no_response(code: str) -> None:
    row = error_row(2, error=RowError(code=code, message="Too late."), request_id="123")
    assert openai_line(row, endpoint=CHAT) == {
        "id": "batch_req_123",
        "custom_id": "row-2",
        "response": None,
        "error": {"code": code, "message": "Too late."},
    }


@pytest.mark.parametrize("code", ["poison", "invalid_logits"])
def test_our_own_failure_is_a_server_error(code: str) -> None:
    row = error_row(0, error=RowError(code=code, message="The engine died."))
    response: dict[str, Any] = openai_line(row, endpoint=CHAT)["response"]
    assert response["status_code"] == 500
    assert response["body"]["error"]["type"] == "server_error"


def test_a_line_is_json() -> None:
    for row in (ROW, error_row(0)):
        line = openai_line(row, endpoint=CHAT)
        assert json.loads(json.dumps(line)) == line


def test_another_endpoint_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="/v1/embeddings"):
        openai_line(ROW, endpoint="/v1/embeddings")

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response, ResponseOutputMessage, ResponseOutputText

from batchgen.core.endpoints import RESPONSES
from batchgen.core.rows import Choice, RowError, Usage
from batchgen.dataset.openai_output import openai_line
from tests.support.result_rows import error_row, ok_row

LOGPROB = {"token": "So", "logprob": -0.5, "bytes": [83, 111], "top_logprobs": []}
ECHO = {
    "instructions": "Be short.",
    "metadata": {"k": "v"},
    "text": {"format": {"type": "json_object"}},
    "max_output_tokens": 7,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_logprobs": 2,
}


def body_of(echo: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    """The response object of a row with one choice."""
    choices = [Choice(index=0, text="So.", **{"finish_reason": "stop", **choice})]
    usage = Usage(prompt_tokens=24, completion_tokens=15, cached_tokens=8)
    row = ok_row(
        0,
        model="M",
        request_id="req_c187b3",
        created_at=1_711_475_054_999_999,
        choices=choices,
        usage=usage,
    )
    response = openai_line(row, endpoint=RESPONSES, echo=echo)["response"]
    assert (response["status_code"], response["request_id"]) == (200, "req_c187b3")
    return dict(response["body"])


def strict(body: dict[str, Any]) -> Response:
    """The body as the official client's object; every field must have the type it declares."""
    response = Response.model_validate_json(json.dumps(body), strict=True)
    assert response.model_dump(include=set(body), by_alias=True, exclude_unset=True) == body
    return response


def test_an_answer_is_a_response_of_the_official_client() -> None:
    response = strict(body_of(ECHO))
    assert (response.id, response.object, response.model) == ("resp_c187b3", "response", "M")
    assert (response.status, response.incomplete_details) == ("completed", None)
    assert response.output_text == "So."
    assert (response.created_at, response.completed_at) == (1711475054, 1711475054)
    (message,) = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert (message.id, message.status) == ("msg_c187b3", "completed")


def test_an_answer_repeats_its_request() -> None:
    body = body_of(ECHO)
    assert {name: body[name] for name in ECHO} == ECHO
    unknown = strict(body_of())
    assert (unknown.instructions, unknown.metadata, unknown.top_logprobs) == (None, {}, 0)


def test_a_cut_answer_is_incomplete() -> None:
    response = strict(body_of(finish_reason="length"))
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.completed_at is None
    (message,) = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert message.status == "incomplete"


def test_usage_has_the_names_of_the_endpoint() -> None:
    usage = strict(body_of()).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (24, 15, 39)
    assert usage.input_tokens_details.cached_tokens == 8


def test_log_probabilities_stand_beside_the_text() -> None:
    logprobs = json.dumps({"content": [LOGPROB], "refusal": None, "prompt": [None, LOGPROB]})
    body = body_of(logprobs=logprobs, tokens=[5], score=-2.5)
    (message,) = strict(body).output
    assert isinstance(message, ResponseOutputMessage)
    (part,) = message.content
    assert isinstance(part, ResponseOutputText)
    assert part.logprobs is not None
    assert [(each.token, each.logprob) for each in part.logprobs] == [("So", -0.5)]
    assert body["output"][0]["content"][0] == {
        "type": "output_text",
        "text": "So.",
        "annotations": [],
        "logprobs": [LOGPROB],
        "prompt_logprobs": [None, LOGPROB],
        "token_ids": [5],
        "score": -2.5,
    }


def test_the_best_choice_is_the_answer() -> None:
    choices = [Choice(index=at, text=str(at), finish_reason="stop") for at in (0, 1)]
    line = openai_line(ok_row(0, choices=choices), endpoint=RESPONSES)
    assert strict(line["response"]["body"]).output_text == "0"


def test_an_error_has_the_form_of_every_endpoint() -> None:
    line = openai_line(error_row(0), endpoint=RESPONSES)
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"].keys() == {"error"}
    late = error_row(0, error=RowError(code="batch_expired", message="Too late."))
    assert openai_line(late, endpoint=RESPONSES)["response"] is None

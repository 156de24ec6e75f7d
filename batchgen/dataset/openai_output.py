"""Turn a result row into a line of OpenAI's batch output or error file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchgen.core.endpoints import CHAT, RESPONSES, endpoint_fault
from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from batchgen.dataset.openai_logprobs import chat_logprobs, completion_logprobs
from batchgen.dataset.openai_response import response_body
from batchgen.errors import InvalidParameter

#: Rows that were never computed: OpenAI gives them no response.
NOT_ASKED: Final = frozenset({"batch_expired", "batch_cancelled"})

#: Failures of the service, not of the request: HTTP 500. Every other code is a 400.
SERVICE_FAILURES: Final = frozenset({"poison", "invalid_logits", "server_error"})


def openai_line(
    row: ResultRow, *, endpoint: str, echo: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a row in OpenAI's form: for the output file, or for the error file if it failed.

    A failed request has its HTTP status and error in `response`, and `error` is null. A row that
    was never computed (`batch_expired`, `batch_cancelled`) has no response, and an `error`.
    `echo` are the fields of a request to /v1/responses that its answer repeats. An endpoint that
    is not served raises InvalidParameter.
    """
    if fault := endpoint_fault(endpoint):
        raise InvalidParameter(f"'endpoint' {fault}", param="endpoint")
    line: dict[str, Any] = {
        "id": f"batch_req_{_unique(row)}",
        "custom_id": row.custom_id,
        "response": None,
        "error": None,
    }
    if row.error is None:
        line["response"] = _response(row, 200, _body(row, endpoint, echo))
    elif row.error.code in NOT_ASKED:
        line["error"] = {"code": row.error.code, "message": row.error.message}
    else:
        status = 500 if row.error.code in SERVICE_FAILURES else 400
        line["response"] = _response(row, status, {"error": _error(row.error, status)})
    return line


def _body(row: ResultRow, endpoint: str, echo: Mapping[str, Any] | None) -> dict[str, Any]:
    if endpoint == RESPONSES:
        return response_body(row, unique=_unique(row), echo=echo or {})
    return _chat_body(row) if endpoint == CHAT else _completion_body(row)


def _response(row: ResultRow, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": row.request_id, "body": body}


def _error(error: RowError, status: int) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"message": error.message, "type": kind, "param": error.param, "code": error.code}


def _chat_body(row: ResultRow) -> dict[str, Any]:
    choices = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            **_rest(choice, *chat_logprobs(choice.logprobs)),
        }
        for choice in row.choices
    ]
    return _choices_body(row, f"chatcmpl-{_unique(row)}", "chat.completion", choices)


def _completion_body(row: ResultRow) -> dict[str, Any]:
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            **_rest(choice, *completion_logprobs(choice.logprobs, choice.text)),
        }
        for choice in row.choices
    ]
    return _choices_body(row, f"cmpl-{_unique(row)}", "text_completion", choices)


def _rest(
    choice: Choice, logprobs: dict[str, Any] | None, prompt: list[Any] | None
) -> dict[str, Any]:
    rest: dict[str, Any] = {"logprobs": logprobs, "finish_reason": choice.finish_reason}
    # OpenAI has no such field: it is written only if the row asked for it.
    if prompt is not None:
        rest["prompt_logprobs"] = prompt
    if choice.tokens is not None:
        rest |= {"token_ids": choice.tokens, "score": choice.score}
    return rest


def _choices_body(
    row: ResultRow, identity: str, kind: str, choices: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": identity,
        "object": kind,
        "created": row.created_at // 1_000_000,
        "model": row.model,
        "choices": choices,
        "usage": _usage(row.usage),
        "system_fingerprint": None,
    }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _unique(row: ResultRow) -> str:
    """Return the unique part of a row's request id, to build other ids from."""
    return row.request_id.removeprefix("req_")

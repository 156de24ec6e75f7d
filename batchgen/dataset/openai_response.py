"""The body of an answer of /v1/responses: a `response` object with one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchgen.core.rows import Choice, ResultRow, Usage
from batchgen.dataset.openai_logprobs import chat_logprobs

#: What every response says, because batchgen serves nothing else.
_ALWAYS: Final[Mapping[str, Any]] = {
    "background": False,
    "error": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": False,
    "tool_choice": "auto",
    "tools": [],
    "truncation": "disabled",
    "user": None,
}
#: Fields that repeat the request, with their values if the request is not known.
_REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "top_logprobs": 0,
    "top_p": None,
}


def response_body(row: ResultRow, *, unique: str, echo: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `response` object of an answered row, from its first choice.

    `unique` is the unique part of the row's ids; `echo` are the request's fields to repeat.
    """
    choice, created = row.choices[0], row.created_at // 1_000_000
    cut = choice.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    return {
        "id": f"resp_{unique}",
        "object": "response",
        "created_at": created,
        "completed_at": None if cut else created,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": row.model,
        "output": [_message(choice, f"msg_{unique}", status)],
        "usage": _usage(row.usage),
        **_ALWAYS,
        **_REPEATED,
        **echo,
    }


def _message(choice: Choice, identity: str, status: str) -> dict[str, Any]:
    logprobs, prompt = chat_logprobs(choice.logprobs)
    part: dict[str, Any] = {
        "type": "output_text",
        "text": choice.text,
        "annotations": [],
        "logprobs": logprobs["content"] if logprobs else [],
    }
    # OpenAI has no such fields: they are written only if the row asked for them.
    if prompt is not None:
        part["prompt_logprobs"] = prompt
    if choice.tokens is not None:
        part |= {"token_ids": choice.tokens, "score": choice.score}
    message = {"type": "message", "id": identity, "role": "assistant", "status": status}
    return {**message, "content": [part]}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }

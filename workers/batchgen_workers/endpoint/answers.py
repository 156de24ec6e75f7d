"""The answer of an endpoint becomes the choices of a row.

An answer that is not OpenAI's JSON, or not whole, raises Unreadable: another attempt may be better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from batchgen.core.rows import Choice, FinishReason, GenerationRequest, RowError, Usage
from batchgen_workers.endpoint.token_logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    Entry,
    PromptToken,
    encode_logprobs,
    entries_of,
    prompt_entries,
)

#: {finish reason of a server: ours}; every other one ends a row without an answer.
REASONS: Final[dict[str | None, FinishReason]] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "tool_calls"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
}
FILTERED: Final = RowError(
    code="content_filter", message="The endpoint's content filter withheld the answer."
)

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Unreadable(Exception):
    """An answer cannot be read; the text says why, without quoting it."""


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _AnyChoice(msgspec.Struct, kw_only=True):
    index: _Count = 0
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _ChatChoice(_AnyChoice, kw_only=True):
    message: _Message
    logprobs: ChatLogprobs | None = None


class _CompletionChoice(_AnyChoice, kw_only=True):
    text: str
    logprobs: CompletionLogprobs | None = None
    prompt_logprobs: list[dict[str, PromptToken] | None] | None = None


class _Answer(msgspec.Struct, kw_only=True):
    model: str | None = None
    usage: _Usage | None = None


class _ChatAnswer(_Answer, kw_only=True):
    choices: list[_ChatChoice]
    prompt_logprobs: list[dict[str, PromptToken] | None] | None = None


class _CompletionAnswer(_Answer, kw_only=True):
    choices: list[_CompletionChoice]


_chat = msgspec.json.Decoder(_ChatAnswer)
_completion = msgspec.json.Decoder(_CompletionAnswer)


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a row, and the name of the model that gave it."""

    choices: list[Choice]
    usage: Usage | None
    model: str | None
    error: RowError | None = None


def read_answer(body: bytes, request: GenerationRequest) -> Answered:
    """Return the answer to a row; raise Unreadable."""
    try:
        is_chat = request.messages is not None
        found = _chat.decode(body) if is_chat else _completion.decode(body)
        return _answered(found, request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unreadable(f"the answer is not OpenAI's JSON ({type(error).__name__})") from None


def _answered(found: _ChatAnswer | _CompletionAnswer, request: GenerationRequest) -> Answered:
    several: Sequence[_ChatChoice | _CompletionChoice] = found.choices
    if any(choice.finish_reason == "content_filter" for choice in several):
        return Answered(choices=[], usage=None, model=found.model, error=FILTERED)
    if sorted(choice.index for choice in several) != list(range(request.params.n)):
        raise Unreadable(f"{len(several)} answers came instead of {request.params.n}")
    in_order = sorted(several, key=lambda choice: choice.index)
    prompt = _prompt_logprobs(found)
    return Answered(
        choices=[_choice(choice, request, prompt) for choice in in_order],
        usage=_usage(found.usage),
        model=found.model,
    )


def _choice(
    choice: _ChatChoice | _CompletionChoice,
    request: GenerationRequest,
    prompt: list[Entry | None] | None,
) -> Choice:
    params = request.params
    if (reason := REASONS.get(choice.finish_reason)) is None:
        raise Unreadable(f"an answer ended for the reason {str(choice.finish_reason)[:40]!r}")
    entries = entries_of(choice.logprobs) if params.logprobs else None
    if params.logprobs and entries is None:
        raise Unreadable("the log-probabilities that were asked for are missing")
    if params.return_token_ids and choice.token_ids is None:
        raise Unreadable("the token ids that were asked for are missing")
    return Choice(
        index=choice.index,
        text=_text(choice),
        finish_reason=reason,
        score=None if entries is None else sum(entry.logprob for entry in entries),
        tokens=choice.token_ids if params.return_token_ids else None,
        logprobs=encode_logprobs(entries, prompt),
    )


def _text(choice: Any) -> str:
    """Return the text of an answer; reasoning stands before it, as our own engine returns it."""
    if isinstance(choice, _CompletionChoice):
        return choice.text
    message: _Message = choice.message
    text = message.content or ""
    reasoning = message.reasoning or message.reasoning_content
    return f"<think>\n{reasoning}\n</think>\n\n{text}" if reasoning else text


def _prompt_logprobs(found: _ChatAnswer | _CompletionAnswer) -> list[Entry | None] | None:
    if isinstance(found, _ChatAnswer):
        given = found.prompt_logprobs
    else:
        given = found.choices[0].prompt_logprobs if found.choices else None
    return None if given is None else prompt_entries(list(given))


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=(details.cached_tokens if details else None) or 0,
    )

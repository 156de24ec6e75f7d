"""Log-probabilities in the answers of servers, brought into the form of the dataset.

    chat         {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}      as it is here
    completion   {"tokens", "token_logprobs", "top_logprobs": [{token: logprob}]}  OpenAI's older
    vLLM prompt  [null, {"464": {"logprob", "rank", "decoded_token"}, …}, …]       the token first

The dataset's form is described in `batchgen.dataset.openai_logprobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

LOWEST = -9999.0  # of an impossible token; JSON has no infinity


class Alternative(msgspec.Struct, kw_only=True):
    """A token that could have come, with its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class Entry(Alternative, kw_only=True):
    """A token that came."""

    top_logprobs: list[Alternative] = []


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """The `logprobs` of a choice of a chat."""

    content: list[Entry] | None = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """The `logprobs` of a choice of a completion."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class PromptToken(msgspec.Struct, kw_only=True):
    """A token at one place of a prompt, as vLLM tells it."""

    logprob: float
    decoded_token: str | None = None


def entries_of(logprobs: ChatLogprobs | CompletionLogprobs | None) -> list[Entry] | None:
    """Return the tokens of an answer, None if it has no log-probabilities."""
    if isinstance(logprobs, CompletionLogprobs):
        tops = logprobs.top_logprobs or [None] * len(logprobs.tokens)
        return [
            _entry(token, LOWEST if value is None else value, top or {})
            for token, value, top in zip(
                logprobs.tokens, logprobs.token_logprobs, tops, strict=True
            )
        ]
    return None if logprobs is None else logprobs.content


def prompt_entries(found: list[Mapping[str, PromptToken] | None]) -> list[Entry | None]:
    """Return the tokens of a prompt with as many alternatives as the server gives."""
    return [_prompt_entry(place) if place else None for place in found]


def encode_logprobs(content: list[Entry] | None, prompt: list[Entry | None] | None) -> str | None:
    """Return the JSON of the dataset's column, None if there is nothing to tell."""
    if content is None and prompt is None:
        return None
    shown: dict[str, Any] = {"content": content, "refusal": None}
    if prompt is not None:
        shown["prompt"] = prompt
    return msgspec.json.encode(shown).decode()


def _prompt_entry(place: Mapping[str, PromptToken]) -> Entry:
    first, *others = place.values()
    entry = _entry(first.decoded_token or "", first.logprob, {})
    ranked = sorted((first, *others), key=lambda token: -token.logprob)
    entry.top_logprobs = [_alternative(one.decoded_token or "", one.logprob) for one in ranked]
    return entry


def _entry(token: str, logprob: float, top: Mapping[str, float]) -> Entry:
    return Entry(
        token=token,
        logprob=max(logprob, LOWEST),
        bytes=list(token.encode(errors="replace")),
        top_logprobs=[_alternative(other, value) for other, value in top.items()],
    )


def _alternative(token: str, logprob: float) -> Alternative:
    data = list(token.encode(errors="replace"))
    return Alternative(token=token, logprob=max(logprob, LOWEST), bytes=data)

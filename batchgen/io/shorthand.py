"""Shorthand lines: {"messages": […]} or {"prompt": …}, sampling fields, and the caller's own."""

from __future__ import annotations

from typing import Any

import msgspec

from batchgen.io.checks import token_ids
from batchgen.io.fields import MAX_TOKENS, SHORTHAND_FIELDS, read_sampling
from batchgen.io.line_error import LineError
from batchgen.io.messages import Message, check_messages

_TOKEN_IDS = token_ids(1, MAX_TOKENS)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a line asks, whichever form it has. One of `messages` and `prompt` is set."""

    messages: list[Message] | None
    # A text, or the ids of its tokens.
    prompt: str | list[int] | None
    # The SamplingParams fields that the line itself sets.
    params: dict[str, Any]
    # Everything else, carried to the output.
    extra: dict[str, Any]


def read_shorthand_line(data: dict[str, Any]) -> Question:
    """Return what the line asks; raise LineError. Fields of no meaning here are carried along."""
    params, extra = read_sampling(data, SHORTHAND_FIELDS)
    messages = extra.pop("messages", None)
    prompt = extra.pop("prompt", None)
    # The id is what the row is called; only an `id` beside a `custom_id` is data.
    if extra.pop("custom_id", None) is None:
        extra.pop("id", None)
    if messages is not None:
        if prompt is not None:
            raise LineError("invalid_value", "'messages' and 'prompt' are both given: keep one.")
        messages = check_messages(messages)
    elif prompt is not None:
        prompt = check_prompt(prompt)
    else:
        raise LineError(
            "missing_required_parameter",
            "'messages' or 'prompt' is missing: give a chat or a text.",
            "messages",
        )
    return Question(messages=messages, prompt=prompt, params=params, extra=extra)


def check_prompt(value: Any) -> str | list[int]:
    """Return a raw prompt, a text or a list of token ids; raise LineError."""
    if type(value) is list and any(type(each) in (str, list) for each in value):
        raise LineError(
            "invalid_type", "'prompt' is a list of prompts: write one line for each.", "prompt"
        )
    if value in ("", []):
        raise LineError("invalid_value", "'prompt' is empty: write the text to go on.", "prompt")
    if type(value) is list:
        return list(_TOKEN_IDS.check("prompt", value))
    if type(value) is not str:
        raise LineError(
            "invalid_type", "'prompt' must be a text, or a list of token ids.", "prompt"
        )
    return value

"""Shorthand lines: {"messages": […]} or {"prompt": …}, sampling fields and columns."""

from __future__ import annotations

from typing import Any

import msgspec

from batchgen.requests.columns import check_misspelt
from batchgen.requests.fields import MAX_TOKENS, SHORTHAND_FIELDS, read_sampling
from batchgen.requests.values.checks import token_ids
from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.messages import Message, check_messages
from batchgen.spelling import suggestion

_TOKEN_IDS = token_ids(1, MAX_TOKENS)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a line, the same for both forms. One of `messages` and `prompt` is set."""

    messages: list[Message] | None
    # A text, or the ids of its tokens.
    prompt: str | list[int] | None
    # The SamplingParams fields that the line itself sets.
    params: dict[str, Any]
    # All other fields, copied to the output.
    extra: dict[str, Any]
    # The model that the line names, None if it names none.
    model: str | None = None
    # The fields that the answer repeats, if the line is for /v1/responses.
    echo: dict[str, Any] | None = None


def read_shorthand_line(data: dict[str, Any]) -> Question:
    """Return the question of the line; raise LineError. Other fields are columns."""
    try:
        params, extra = read_sampling(data, SHORTHAND_FIELDS)
    except LineError as error:
        raise _with_column_hint(error) from None
    messages = extra.pop("messages", None)
    prompt = extra.pop("prompt", None)
    # `id` is the id of the row, unless there is a `custom_id`: then `id` is data.
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
            "'messages' or 'prompt' is missing: give a chat or a text." + _meant(extra),
            "messages",
        )
    check_misspelt(extra)
    return Question(messages=messages, prompt=prompt, params=params, extra=extra)


def _with_column_hint(error: LineError) -> LineError:
    """Return the error of a field, with advice for the case that the field is data."""
    code, message, param = error.error.code, error.error.message, error.error.param
    if code not in ("unsupported_parameter", "unknown_parameter", "invalid_type"):
        return error
    return LineError(code, f"{message} Is it a column? Say so with --columns.", param)


def _meant(extra: dict[str, Any]) -> str:
    for name in extra:
        if hint := suggestion(name, ("messages", "prompt")):
            return f"{hint.removesuffix('?')} by {quoted(name)}?"
    return ""


def check_prompt(value: Any) -> str | list[int]:
    """Return a raw prompt: a text or a list of token ids; raise LineError."""
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

"""OpenAI batch lines: {"custom_id": …, "method": "POST", "url": …, "body": {…}}."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from batchgen.requests.columns import check_beside_body
from batchgen.requests.fields import CHAT_FIELDS, COMPLETION_FIELDS, read_sampling
from batchgen.requests.line_error import LineError, quoted
from batchgen.requests.messages import check_messages
from batchgen.requests.shorthand import Question, check_prompt
from batchgen.spelling import suggestion

CHAT_URL: Final = "/v1/chat/completions"
COMPLETIONS_URL: Final = "/v1/completions"
_ENVELOPE: Final = ("custom_id", "method", "url", "body")


def is_openai_line(data: dict[str, Any]) -> bool:
    """Return whether this is an OpenAI batch line. A shorthand line has its prompt at the top."""
    return not ("messages" in data or "prompt" in data) and (
        "body" in data or "url" in data or "method" in data
    )


def read_openai_line(data: dict[str, Any]) -> Question:
    """Return the question of the line; raise LineError.

    Fields other than OpenAI's four are copied to the output.
    """
    url, body = data.get("url"), data.get("body")
    if (
        data.get("custom_id") is None
        or data.get("method") != "POST"
        or (url != CHAT_URL and url != COMPLETIONS_URL)
        or type(body) is not dict
    ):
        _refuse_envelope(data)
    asked = body.get("model")
    if asked is not None and type(asked) is not str:
        raise LineError("invalid_type", "'model' must be a string.", "model")
    chat = url == CHAT_URL
    content, fields = ("messages", CHAT_FIELDS) if chat else ("prompt", COMPLETION_FIELDS)
    if body.get(content) is None:
        raise LineError("missing_required_parameter", f"'{content}' is missing in 'body'.", content)
    params, unknown = read_sampling(body, fields)
    messages = prompt = None
    if chat:
        messages = check_messages(unknown.pop("messages"))
    else:
        prompt = check_prompt(unknown.pop("prompt"))
    unknown.pop("model", None)
    for name in unknown:
        raise LineError(
            "unknown_parameter",
            f"{url} has no field {quoted(name)}: remove it." + suggestion(name, fields),
            name,
        )
    extra = {}
    if len(data) > len(_ENVELOPE):
        extra = {name: value for name, value in data.items() if name not in _ENVELOPE}
        check_beside_body(extra)
    return Question(messages=messages, prompt=prompt, params=params, extra=extra, model=asked)


def _refuse_envelope(data: dict[str, Any]) -> NoReturn:
    for name in _ENVELOPE:
        if data.get(name) is None:
            raise LineError(
                "missing_required_parameter",
                f"'{name}' is missing: an OpenAI batch line has custom_id, method, url and body.",
                name,
            )
    if data["method"] != "POST":
        raise LineError("invalid_value", "'method' must be POST.", "method")
    if data["url"] not in (CHAT_URL, COMPLETIONS_URL):
        raise LineError("invalid_value", f"'url' must be {CHAT_URL} or {COMPLETIONS_URL}.", "url")
    raise LineError("invalid_type", "'body' must be an object.", "body")

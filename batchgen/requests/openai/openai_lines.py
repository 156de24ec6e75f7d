"""OpenAI batch lines: {"custom_id": …, "method": "POST", "url": …, "body": {…}}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from batchgen.core.endpoints import CHAT, COMPLETIONS, RESPONSES, SERVED, endpoint_fault
from batchgen.requests.columns import check_beside_body
from batchgen.requests.fields import CHAT_FIELDS, COMPLETION_FIELDS, read_sampling
from batchgen.requests.openai.response_fields import RESPONSE_FIELDS
from batchgen.requests.openai.response_items import read_input
from batchgen.requests.shorthand import Question, check_prompt
from batchgen.requests.values.checks import Check
from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.messages import check_messages
from batchgen.spelling import suggestion

_ENVELOPE: Final = ("custom_id", "method", "url", "body")
#: Fields of a request to /v1/responses that its answer repeats as they are.
_REPEATED: Final = ("instructions", "metadata", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """The fields of one endpoint's body. `content` holds the prompt; a body must have it."""

    content: str
    fields: Mapping[str, Check]
    others: frozenset[str] = field(default=frozenset({"model"}))


_ENDPOINTS: Final[Mapping[str, _Endpoint]] = {
    CHAT: _Endpoint(content="messages", fields=CHAT_FIELDS),
    COMPLETIONS: _Endpoint(content="prompt", fields=COMPLETION_FIELDS),
    RESPONSES: _Endpoint(
        content="input", fields=RESPONSE_FIELDS, others=frozenset({"model", "instructions"})
    ),
}


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
        or url not in SERVED
        or type(body) is not dict
    ):
        _refuse_envelope(data)
    extra = {}
    if len(data) > len(_ENVELOPE):
        extra = {name: value for name, value in data.items() if name not in _ENVELOPE}
        check_beside_body(extra)
    return _question(url, body, extra)


def _question(url: str, body: dict[str, Any], extra: dict[str, Any]) -> Question:
    asked, endpoint = body.get("model"), _ENDPOINTS[url]
    if asked is not None and type(asked) is not str:
        raise LineError("invalid_type", "'model' must be a string.", "model")
    content = body.get(endpoint.content)
    if content is None:
        name = endpoint.content
        raise LineError("missing_required_parameter", f"'{name}' is missing in 'body'.", name)
    params, unknown = read_sampling(body, endpoint.fields)
    messages = prompt = echo = None
    if url == CHAT:
        messages = check_messages(content)
    elif url == COMPLETIONS:
        prompt = check_prompt(content)
    else:
        messages = read_input(content, body.get("instructions"))
        echo = {name: body[name] for name in _REPEATED if body.get(name) is not None}
    _refuse_unknown(unknown, url, endpoint)
    return Question(
        messages=messages, prompt=prompt, params=params, extra=extra, model=asked, echo=echo
    )


def _refuse_unknown(unknown: Mapping[str, Any], url: str, endpoint: _Endpoint) -> None:
    for name in unknown:
        if name != endpoint.content and name not in endpoint.others:
            raise LineError(
                "unknown_parameter",
                f"{url} has no field {quoted(name)}: remove it."
                + suggestion(name, (*endpoint.fields, endpoint.content, *endpoint.others)),
                name,
            )


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
    if fault := endpoint_fault(data["url"]):
        raise LineError("invalid_value", f"'url' {fault}", "url")
    raise LineError("invalid_type", "'body' must be an object.", "body")

"""Check the `messages` of a chat and bring all their forms into one: roles and texts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.tool_calls import check_tool_calls
from batchgen.spelling import suggestion

Message = dict[str, Any]

#: In the order in which errors list them.
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
# Fields of OpenAI's messages, and of answers that are sent again, beside role and content. The
# first are kept as text, the others are refused unless they are empty.
_TEXT_FIELDS: Final = frozenset({"name", "tool_call_id"})
_UNSERVED_FIELDS: Final = frozenset(
    {"annotations", "audio", "function_call", "reasoning", "reasoning_content", "refusal"}
)


def check_messages(value: Any) -> list[Message]:
    """Return the messages with every content as one string; raise LineError.

    A content that is a list of text parts becomes their texts, joined by line feeds. A content that
    is null beside tool calls becomes ''. Arguments of tool calls become objects.
    """
    if type(value) is not list:
        raise LineError("invalid_type", "'messages' must be a list of messages.", "messages")
    if not value:
        raise LineError("invalid_value", "'messages' is empty: give at least one.", "messages")
    return [
        # The common case, {"role": …, "content": "…"}, is used as it is.
        message
        if type(message) is dict
        and len(message) == 2
        and type(message.get("content")) is str
        and type(role := message.get("role")) is str
        and role in ROLES
        else _normal(message, f"messages[{i}]")
        for i, message in enumerate(value)
    ]


def _normal(message: Any, path: str) -> Message:
    if type(message) is not dict:
        raise LineError("invalid_type", f"'{path}' must be an object.", path)
    role = check_role(message.get("role"), f"{path}.role")
    calls = message.get("tool_calls")
    if calls and role != "assistant":
        field = f"{path}.tool_calls"
        raise LineError("invalid_value", f"'{field}' is for the role assistant alone.", field)
    content = message.get("content")
    if content is None and not calls:
        field = f"{path}.content"
        raise LineError("missing_required_parameter", f"'{field}' is missing.", field)
    normal: Message = {
        "role": role,
        "content": "" if content is None else check_text(content, f"{path}.content"),
    }
    if calls:
        normal["tool_calls"] = check_tool_calls(calls, f"{path}.tool_calls")
    for field, value in message.items():
        if field not in normal and field != "tool_calls" and value is not None:
            _check_other_field(field, value, path)
            if field in _TEXT_FIELDS:
                normal[field] = value
    return normal


def check_role(role: Any, path: str, roles: Collection[str] = ROLES) -> str:
    """Return the role of a message; raise LineError if it is not one of `roles`."""
    if role is None:
        raise LineError("missing_required_parameter", f"'{path}' is missing.", path)
    if type(role) is not str or role not in roles:
        *others, last = (name for name in ROLES if name in roles)
        listed = f"{', '.join(others)} or {last}"
        raise LineError("invalid_value", f"'{path}' must be {listed}.", path)
    return role


def _check_other_field(field: str, value: Any, path: str) -> None:
    if field in _TEXT_FIELDS:
        if type(value) is not str:
            raise LineError(
                "invalid_type", f"'{path}.{field}' must be a string.", f"{path}.{field}"
            )
    elif field in _UNSERVED_FIELDS:
        if value not in ("", [], {}):
            raise LineError(
                "unsupported_parameter",
                f"'{path}.{field}' is not served: remove it.",
                f"{path}.{field}",
            )
    else:
        raise LineError(
            "unknown_parameter",
            f"'{path}' has an unknown field {quoted(field)}: remove it."
            + suggestion(field, ("role", "content", *_TEXT_FIELDS, *_UNSERVED_FIELDS)),
            path,
        )


def check_text(content: Any, path: str, kinds: Collection[str] = ("text",)) -> str:
    """Return a content as one string; raise LineError if it has parts of other types than these."""
    if type(content) is str:
        return content
    if type(content) is not list:
        raise LineError("invalid_type", f"'{path}' must be a string or a list of text parts.", path)
    if not content:
        raise LineError("invalid_value", f"'{path}' is empty: give at least one part.", path)
    return "\n".join(_part(part, f"{path}[{i}]", kinds) for i, part in enumerate(content))


def _part(part: Any, path: str, kinds: Collection[str]) -> str:
    if type(part) is not dict or type(part.get("type")) is not str:
        first = min(kinds)
        raise LineError(
            "invalid_type", f'\'{path}\' must be a part: {{"type": "{first}", "text": …}}.', path
        )
    if part["type"] not in kinds:
        raise LineError(
            "unsupported_content",
            f"'{path}' is of type {quoted(part['type'])}: only text parts are served.",
            path,
        )
    if type(part.get("text")) is not str:
        raise LineError("invalid_type", f"'{path}.text' must be a string.", f"{path}.text")
    return str(part["text"])

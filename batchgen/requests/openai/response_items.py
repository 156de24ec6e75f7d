"""Turn the `input` of a request to /v1/responses into the messages of a chat.

    "text"                                          {"role": "user", "content": "text"}
    message items, role and content                 the same message
    function_call items, side by side               tool_calls of one assistant's message
    function_call_output                            {"role": "tool", "tool_call_id", "content"}

`instructions` come first, as a system message.
"""

from __future__ import annotations

from typing import Any, Final

from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.messages import Message, check_role, check_text
from batchgen.requests.values.tool_calls import check_tool_calls

ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})
_KINDS: Final = frozenset({"message", "function_call", "function_call_output"})

# Fields of items that say what became of them; answers that are sent again have them.
_BOOKKEEPING: Final = frozenset({"id", "status", "type"})
_FIELDS: Final = {
    "message": _BOOKKEEPING | {"role", "content", "phase"},
    "function_call": _BOOKKEEPING | {"call_id", "name", "arguments"},
    "function_call_output": _BOOKKEEPING | {"call_id", "output"},
}


def read_input(value: Any, instructions: Any) -> list[Message]:
    """Return the messages of `input` and `instructions`; raise LineError."""
    messages = [] if instructions is None else [_system(instructions)]
    if type(value) is str:
        if not value:
            raise LineError("invalid_value", "'input' is empty: write what to answer.", "input")
        return [*messages, {"role": "user", "content": value}]
    if type(value) is not list:
        raise LineError("invalid_type", "'input' must be a text or a list of items.", "input")
    if not value:
        raise LineError("invalid_value", "'input' is empty: give at least one item.", "input")
    for i, item in enumerate(value):
        _append(messages, item, f"input[{i}]")
    return messages


def _system(instructions: Any) -> Message:
    if type(instructions) is not str:
        raise LineError("invalid_type", "'instructions' must be a text.", "instructions")
    return {"role": "system", "content": instructions}


def _append(messages: list[Message], item: Any, path: str) -> None:
    kind = _kind(item, path)
    _check_fields(item, kind, path)
    if kind == "message":
        messages.append(_message(item, path))
    elif kind == "function_call_output":
        messages.append(_output(item, path))
    else:
        _append_call(messages, _call(item, path))


def _kind(item: Any, path: str) -> str:
    if type(item) is not dict:
        raise LineError("invalid_type", f"'{path}' must be an object.", path)
    kind = item.get("type", "message")
    if type(kind) is not str:
        raise LineError("invalid_type", f"'{path}.type' must be a string.", f"{path}.type")
    if kind not in _KINDS:
        message = (
            f"'{path}' is of type {quoted(kind)}: only message, function_call and "
            "function_call_output items are served."
        )
        raise LineError("unsupported_content", message, path)
    return kind


def _check_fields(item: dict[str, Any], kind: str, path: str) -> None:
    for field, value in item.items():
        if field not in _FIELDS[kind] and value is not None:
            message = f"'{path}' has a field {quoted(field)} that is not served: remove it."
            raise LineError("unsupported_parameter", message, path)


def _message(item: dict[str, Any], path: str) -> Message:
    role = check_role(item.get("role"), f"{path}.role", ROLES)
    return {"role": role, "content": _content(item, "content", path)}


def _output(item: dict[str, Any], path: str) -> Message:
    call_id = _call_id(item, path)
    return {"role": "tool", "content": _content(item, "output", path), "tool_call_id": call_id}


def _content(item: dict[str, Any], field: str, path: str) -> str:
    if item.get(field) is None:
        message = f"'{path}.{field}' is missing."
        raise LineError("missing_required_parameter", message, f"{path}.{field}")
    return check_text(item[field], f"{path}.{field}", _TEXT_PARTS)


def _call(item: dict[str, Any], path: str) -> Message:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    if type(function["name"]) is not str:
        raise LineError("invalid_type", f"'{path}.name' must be a string.", f"{path}.name")
    call = {"id": _call_id(item, path), "type": "function", "function": function}
    try:
        return check_tool_calls([call], path)[0]
    except LineError:
        message = f"'{path}.arguments' must be the text of a JSON object."
        raise LineError("invalid_type", message, f"{path}.arguments") from None


def _call_id(item: dict[str, Any], path: str) -> str:
    call_id = item.get("call_id")
    if type(call_id) is not str:
        raise LineError("invalid_type", f"'{path}.call_id' must be a string.", f"{path}.call_id")
    return call_id


def _append_call(messages: list[Message], call: Message) -> None:
    """Add a call to the assistant's message before it, because both are one turn."""
    if messages and messages[-1]["role"] == "assistant":
        message = messages.pop()
    else:
        message = {"role": "assistant", "content": ""}
    calls = [*message.get("tool_calls", ()), call]
    messages.append({**message, "tool_calls": calls})

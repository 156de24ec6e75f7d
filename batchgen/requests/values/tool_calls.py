"""Check the `tool_calls` of an assistant's message: calls made earlier in the chat.

{"id": "…", "type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": …}"}}
"""

from __future__ import annotations

from typing import Any, Final

from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.strict_json import decode_object

ToolCall = dict[str, Any]

_CALL_FIELDS: Final = frozenset({"id", "type", "function", "index"})
_FUNCTION_FIELDS: Final = frozenset({"name", "arguments"})


def check_tool_calls(value: Any, path: str) -> list[ToolCall]:
    """Return the calls, with the arguments of each as an object; raise LineError.

    OpenAI writes arguments as JSON text; other systems write an object.
    """
    if type(value) is not list:
        raise LineError("invalid_type", f"'{path}' must be a list of calls.", path)
    return [_call(call, f"{path}[{i}]") for i, call in enumerate(value)]


def _call(call: Any, path: str) -> ToolCall:
    _check_object(call, path, _CALL_FIELDS)
    if call.get("type", "function") != "function":
        message = f"'{path}.type' must be function: no other call is served."
        raise LineError("unsupported_parameter", message, f"{path}.type")
    if type(call.get("id", "")) is not str:
        raise LineError("invalid_type", f"'{path}.id' must be a string.", f"{path}.id")
    function = call.get("function")
    where = f"{path}.function"
    _check_object(function, where, _FUNCTION_FIELDS)
    if type(function.get("name")) is not str:
        raise LineError("invalid_type", f"'{where}.name' must be a string.", f"{where}.name")
    arguments = _arguments(function.get("arguments"), f"{where}.arguments")
    checked = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **checked} if "id" in call else checked


def _arguments(value: Any, path: str) -> dict[str, Any]:
    if type(value) is dict:
        return value
    if value == "":  # the function has no arguments
        return {}
    try:
        return decode_object(value.encode())
    except (AttributeError, LineError):
        message = f"'{path}' must be a JSON object, or the text of one."
        raise LineError("invalid_type", message, path) from None


def _check_object(value: Any, path: str, fields: frozenset[str]) -> None:
    if type(value) is not dict:
        raise LineError("invalid_type", f"'{path}' must be an object.", path)
    for field, held in value.items():
        if field not in fields and held is not None:
            message = f"'{path}' has an unknown field {quoted(field)}: remove it."
            raise LineError("unknown_parameter", message, path)

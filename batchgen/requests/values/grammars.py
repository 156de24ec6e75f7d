"""Grammars that an answer must match, in all forms that a caller may use.

json_schema, guided_json, response_format, structured_outputs.json  ──► JSON text of a schema
regex, guided_regex, structured_outputs.regex                       ──► a regular expression

Each grammar is compiled once with the library that the engine uses, so a million rows with one
schema cost one compilation. The library is loaded with the first grammar.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from batchgen.requests.values.checks import Field, Sets
from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.schema_formats import without_unknown_formats
from batchgen.spelling import suggestion

ANY_OBJECT: Final = '{"type":"object"}'  # what OpenAI calls json_object

MAX_SCHEMA_LENGTH: Final = 1 << 17  # characters; a schema of this length compiles in a second
MAX_REGEX_LENGTH: Final = 1 << 14
_REASON_SHOWN: Final = 200  # characters of the library's message
_REMEMBERED: Final = 256  # grammars

_FORMAT_FIELDS: Final = frozenset({"type", "json_schema"})
_SCHEMA_FIELDS: Final = frozenset({"name", "description", "schema", "strict"})
_OUTPUT_FIELDS: Final = frozenset({"json", "regex", "json_object"})


def read_schema(name: str, value: Any) -> str:
    """Return the JSON text of a schema given as an object or as text; raise LineError."""
    if type(value) is dict:
        text = msgspec.json.encode(value).decode()
    elif type(value) is str:
        text = value
    else:
        raise LineError("invalid_type", f"'{name}' must be a JSON schema, an object.", name)
    if len(text) > MAX_SCHEMA_LENGTH:
        raise _too_long(name, MAX_SCHEMA_LENGTH)
    text = _served(text)
    if reason := schema_fault(text):
        raise LineError("invalid_json_schema", f"'{name}' cannot be served: {reason}", name)
    return text


def read_regex(name: str, value: Any) -> str:
    """Return a regular expression; raise LineError."""
    if type(value) is not str:
        raise LineError("invalid_type", f"'{name}' must be a regular expression, a string.", name)
    if not value:
        raise LineError("invalid_value", f"'{name}' is empty: no answer could match.", name)
    if len(value) > MAX_REGEX_LENGTH:
        raise _too_long(name, MAX_REGEX_LENGTH)
    if reason := regex_fault(value):
        raise LineError("invalid_value", f"'{name}' cannot be served: {reason}", name)
    return value


def read_response_format(name: str, value: Any) -> Sets:
    """Return the parameters that OpenAI's `response_format` sets; raise LineError.

    `text` removes the job's grammar. A schema is always enforced, even if `strict` is false.
    """
    check_object(name, value, _FORMAT_FIELDS)
    kind = value.get("type")
    if kind == "json_schema":
        path = f"{name}.json_schema"
        described = value.get("json_schema")
        check_object(path, described, _SCHEMA_FIELDS)
        if described.get("schema") is None:
            message = f"'{path}.schema' is missing."
            raise LineError("missing_required_parameter", message, f"{path}.schema")
        return Sets(json_schema=read_schema(f"{path}.schema", described["schema"]))
    if kind == "json_object":
        return Sets(json_schema=ANY_OBJECT)
    if kind == "text":
        return Sets(json_schema=None)
    kinds = "text, json_object or json_schema"
    raise LineError("invalid_value", f"'{name}.type' must be {kinds}.", f"{name}.type")


def read_structured_outputs(name: str, value: Any) -> Sets:
    """Return the parameters that vLLM's `structured_outputs` sets; raise LineError."""
    check_object(name, value, _OUTPUT_FIELDS)
    sets = Sets()
    if value.get("json_object") not in (None, False):
        if value["json_object"] is not True:
            path = f"{name}.json_object"
            raise LineError("invalid_type", f"'{path}' must be true or false.", path)
        sets["json_schema"] = ANY_OBJECT
    if value.get("json") is not None:
        if sets:
            both = f"'{name}' holds 'json' and 'json_object': keep one."
            raise LineError("invalid_value", both, name)
        sets["json_schema"] = read_schema(f"{name}.json", value["json"])
    if value.get("regex") is not None:
        sets["regex"] = read_regex(f"{name}.regex", value["regex"])
    if not sets:
        message = f"'{name}' holds no grammar: give it 'json' or 'regex', or remove it."
        raise LineError("invalid_value", message, name)
    return sets


@lru_cache(_REMEMBERED)
def _served(text: str) -> str:
    """Return the JSON text of a schema without the formats that the library does not know."""
    if '"format"' not in text:
        return text
    try:
        schema = msgspec.json.decode(text)
        served = without_unknown_formats(schema)
    except (msgspec.DecodeError, RecursionError):
        return text
    return text if served == schema else msgspec.json.encode(served).decode()


@lru_cache(_REMEMBERED)
def schema_fault(text: str) -> str:
    """Return why the grammar library refuses a JSON schema, '' if it accepts it."""
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"it is not JSON ({error})."
    if type(schema) is not dict:
        return "a schema must be an object."
    from llguidance import LLMatcher

    return _reason_in(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(text)))


@lru_cache(_REMEMBERED)
def regex_fault(text: str) -> str:
    """Return why the grammar library refuses a regular expression, '' if it accepts it."""
    from llguidance import LLMatcher

    return _reason_in(LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(text)))


def _reason_in(message: str) -> str:
    """Return the library's reason in one line, without warnings."""
    if not message or message.startswith("WARNING"):
        return ""
    lines = message.splitlines()
    # For a regular expression, several lines that show the place come first.
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = causes[0] if causes else lines[0]
    if len(reason) > _REASON_SHOWN:
        reason = reason[:_REASON_SHOWN] + "…"
    return reason.rstrip(".") + "."


def check_object(path: str, value: Any, fields: frozenset[str]) -> None:
    """Raise LineError if a value is no object, or has another field than `fields`."""
    if type(value) is not dict:
        raise LineError("invalid_type", f"'{path}' must be an object.", path)
    for field, held in value.items():
        if field not in fields and held is not None:
            served = ", ".join(sorted(fields))
            raise LineError(
                "unsupported_parameter",
                f"'{path}' has a field {quoted(field)} that is not served."
                f"{suggestion(field, fields)} Served: {served}.",
                path,
            )


def _too_long(name: str, most: int) -> LineError:
    return LineError("invalid_value", f"'{name}' is longer than {most:,} characters.", name)


SCHEMA: Final = Field(
    check=read_schema,
    kind="JSON schema, as object or text",
    bounds=f"{MAX_SCHEMA_LENGTH:,} characters",
)
REGEX: Final = Field(
    check=read_regex, kind="regular expression", bounds=f"1 to {MAX_REGEX_LENGTH:,} characters"
)

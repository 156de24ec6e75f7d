"""Remove from a JSON schema the values of `format` that the grammar library does not know.

The library enforces the formats that it knows, and refuses a schema with any other. In JSON Schema
`format` is an annotation that forbids no value: `{"type": "string", "format": "password"}` is any
string.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

# The keywords whose values are schemas. Other values are data, or names that are not keywords.
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"}
)
_INSIDE: Final = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_REMEMBERED: Final = 256  # names


def without_unknown_formats(schema: Any) -> Any:
    """Return a schema, or a list of them, without the formats that the grammar library refuses."""
    if type(schema) is list:
        return [without_unknown_formats(each) for each in schema]
    if type(schema) is not dict:
        return schema
    return {
        name: _cleaned(name, value)
        for name, value in schema.items()
        if name != "format" or type(value) is not str or _is_known(value)
    }


def _cleaned(name: str, value: Any) -> Any:
    if name in _INSIDE:
        return without_unknown_formats(value)
    if name in _BY_NAME and type(value) is dict:
        return {key: without_unknown_formats(each) for key, each in value.items()}
    return value


@lru_cache(_REMEMBERED)
def _is_known(name: str) -> bool:
    from llguidance import LLMatcher

    schema = msgspec.json.encode({"type": "string", "format": name}).decode()
    return not LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema))

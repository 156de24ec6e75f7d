from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import llguidance
import pytest

from batchgen.requests.values.grammars import (
    ANY_OBJECT,
    MAX_REGEX_LENGTH,
    MAX_SCHEMA_LENGTH,
    read_regex,
    read_response_format,
    read_schema,
    read_structured_outputs,
    regex_fault,
    schema_fault,
)
from batchgen.requests.values.line_error import LineError

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}, "required": ["b"]}
TEXT = '{"type":"object","properties":{"b":{"type":"integer"},"a":{}},"required":["b"]}'
# What the library knows as JSON schema but cannot keep to, or what is none.
FAULTY: list[Any] = [
    {"type": "objekt"},
    {"not": {"type": "string"}},
    {"$ref": "#/definitions/missing"},
    {"$ref": "https://example.org/schema.json"},
    {"type": "string", "pattern": "(?=a)"},
    {"type": "integer", "minimum": 5, "maximum": 3},
]


def error_of(read: Callable[..., Any], value: Any) -> tuple[str, str | None]:
    """Return the code and the param, `f` being the field's name, of a value that is refused."""
    with pytest.raises(LineError) as caught:
        read("f", value)
    error = caught.value.error
    assert "\n" not in error.message
    assert len(error.message) < 400
    return error.code, error.param


def test_a_schema_is_kept_as_text_in_the_order_of_its_properties() -> None:
    assert read_schema("f", SCHEMA) == TEXT
    assert read_schema("f", TEXT) == TEXT
    spaced = json.dumps(SCHEMA, indent=2)
    assert read_schema("f", spaced) == spaced


TEXTS: dict[str, Any] = {"type": "string"}


@pytest.mark.parametrize("name", ["iri", "regex", "json-pointer", "idn-email", "password", "Ω"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda schema: schema,
        lambda schema: {
            "type": "object",
            "properties": {"format": schema, "a": {"$ref": "#/$defs/b"}},
            "$defs": {"b": schema},
        },
        lambda schema: {
            "anyOf": [schema, {"type": "array", "items": schema, "prefixItems": [schema]}]
        },
        lambda schema: {"type": "object", "additionalProperties": schema},
    ],
)
def test_a_format_that_is_an_annotation_forbids_nothing(name: str, wrap: Any) -> None:
    expected = json.dumps(wrap(TEXTS), separators=(",", ":"))
    schema = wrap({**TEXTS, "format": name})
    assert read_schema("f", schema) == read_schema("f", json.dumps(schema)) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "format": "date"},
        {"enum": [{"format": "iri"}]},
        {"const": {"format": "iri", "items": {"format": "iri"}}},
        {"type": "object", "properties": {"format": {"const": "iri"}}},
        {"type": "string", "description": '"format"'},
    ],
)
def test_what_is_kept_to_or_is_no_annotation_stays(schema: Any) -> None:
    assert read_schema("f", schema) == json.dumps(schema, separators=(",", ":"))


def test_a_format_of_another_type_is_refused() -> None:
    assert error_of(read_schema, {"type": "string", "format": 3}) == ("invalid_json_schema", "f")


@pytest.mark.parametrize("schema", FAULTY)
def test_a_schema_that_the_library_refuses(schema: Any) -> None:
    assert error_of(read_schema, schema) == ("invalid_json_schema", "f")
    assert error_of(read_schema, json.dumps(schema)) == ("invalid_json_schema", "f")


@pytest.mark.parametrize("text", ["", "{oops", "null", "5", '"a"', "[]", "true", "[" * 50_000])
def test_text_that_is_no_schema(text: str) -> None:
    assert error_of(read_schema, text) == ("invalid_json_schema", "f")


def test_a_reason_is_the_librarys_own() -> None:
    assert schema_fault('{"type":"objekt"}') == "Invalid type: objekt."
    assert regex_fault("(") == "unclosed group."
    assert len(schema_fault('{"type":"' + "x" * 10_000 + '"}')) < 250


@pytest.mark.parametrize("value", [5, True, ["a"]])
def test_a_schema_is_an_object_or_text(value: Any) -> None:
    assert error_of(read_schema, value) == ("invalid_type", "f")


def test_a_schema_without_end_is_not_tried() -> None:
    long = {"type": "string", "description": "x" * MAX_SCHEMA_LENGTH}
    assert error_of(read_schema, long) == ("invalid_value", "f")


def test_one_schema_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Matcher:
        def grammar_from_json_schema(text: str) -> str:  # type: ignore[misc] # noqa: N805
            return text

        def validate_grammar(grammar: str) -> str:  # type: ignore[misc] # noqa: N805
            tried.append(grammar)
            return ""

    monkeypatch.setattr(llguidance, "LLMatcher", Matcher)
    schema_fault.cache_clear()
    for _ in range(3):
        read_schema("f", dict(SCHEMA))
    schema_fault.cache_clear()
    assert tried == [TEXT]


@pytest.mark.parametrize("regex", [r"[A-D]", r"\d{3}-\d{4}", "yes|no", "(?i)ja"])
def test_a_regular_expression(regex: str) -> None:
    assert read_regex("f", regex) == regex


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "invalid_value"),
        ("(", "invalid_value"),
        ("(?=a)b", "invalid_value"),
        (r"\bword", "invalid_value"),
        ("a" * (MAX_REGEX_LENGTH + 1), "invalid_value"),
        (5, "invalid_type"),
        (["a"], "invalid_type"),
    ],
)
def test_other_regular_expressions_are_refused(value: Any, code: str) -> None:
    assert error_of(read_regex, value) == (code, "f")


@pytest.mark.parametrize(
    ("value", "sets"),
    [
        ({"type": "text"}, {"json_schema": None}),
        ({"type": "json_object"}, {"json_schema": ANY_OBJECT}),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, {"json_schema": TEXT}),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "strict": True, "schema": SCHEMA},
            },
            {"json_schema": TEXT},
        ),
        ({"type": "text", "json_schema": None}, {"json_schema": None}),
    ],
)
def test_openais_response_format(value: Any, sets: dict[str, Any]) -> None:
    assert read_response_format("f", value) == sets


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ("json_object", "invalid_type", "f"),
        ({}, "invalid_value", "f.type"),
        ({"type": "xml"}, "invalid_value", "f.type"),
        ({"type": ["text"]}, "invalid_value", "f.type"),
        ({"type": "text", "colour": 1}, "unsupported_parameter", "f"),
        ({"type": "json_schema"}, "invalid_type", "f.json_schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "n"}},
            "missing_required_parameter",
            "f.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": FAULTY[0]}},
            "invalid_json_schema",
            "f.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": SCHEMA, "scheme": 1}},
            "unsupported_parameter",
            "f.json_schema",
        ),
    ],
)
def test_other_response_formats_are_refused(value: Any, code: str, param: str) -> None:
    assert error_of(read_response_format, value) == (code, param)


@pytest.mark.parametrize(
    ("value", "sets"),
    [
        ({"json": SCHEMA}, {"json_schema": TEXT}),
        ({"json": TEXT, "regex": None, "json_object": False}, {"json_schema": TEXT}),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"json_object": True}, {"json_schema": ANY_OBJECT}),
    ],
)
def test_vllms_structured_outputs(value: Any, sets: dict[str, Any]) -> None:
    assert read_structured_outputs("f", value) == sets


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ([], "invalid_type", "f"),
        ({}, "invalid_value", "f"),
        ({"choice": ["a", "b"]}, "unsupported_parameter", "f"),
        ({"json": FAULTY[0]}, "invalid_json_schema", "f.json"),
        ({"regex": "("}, "invalid_value", "f.regex"),
        ({"json_object": 1}, "invalid_type", "f.json_object"),
        ({"json": SCHEMA, "json_object": True}, "invalid_value", "f"),
    ],
)
def test_other_structured_outputs_are_refused(value: Any, code: str, param: str) -> None:
    assert error_of(read_structured_outputs, value) == (code, param)


def test_the_library_is_loaded_for_the_first_grammar_only() -> None:
    code = (
        "import sys; from batchgen.requests.lines import parse_line\n"
        "read = lambda raw: parse_line(raw, row=0, defaults={}, model=None)\n"
        'read(b\'{"prompt": "x"}\'); print("llguidance" in sys.modules)\n'
        'read(b\'{"prompt": "x", "regex": "a"}\'); print(*map(sys.modules.__contains__,\n'
        '    ("llguidance", "torch")))\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True", "False"]

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.requests.values.line_error import LineError
from batchgen.requests.values.strict_json import (
    MAX_DEPTH,
    MAX_LINE_BYTES,
    count_words,
    decode_object,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('ab"\\:{}, é\n', max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)
OBJECT = st.dictionaries(st.text('ab"\\:{}, é\n', max_size=6), JSON, max_size=5)


def refusal(raw: bytes) -> LineError:
    with pytest.raises(LineError) as caught:
        decode_object(raw)
    return caught.value


def nested(depth: int) -> bytes:
    """An object of `depth` levels, itself the first."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@given(OBJECT, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " \r:\t ")]))
def test_an_object_is_read_as_it_was_written(
    value: dict[str, Any], ascii_only: bool, separators: tuple[str, str]
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    assert decode_object(raw) == value


@given(OBJECT, st.sampled_from(["a", "b", '"', "\\", ":", "\\\\", 'a": ']), JSON, JSON)
def test_a_name_given_twice_is_refused_at_any_depth(
    around: dict[str, Any], name: str, one: Any, two: Any
) -> None:
    first, second = (f"{json.dumps(name)} : {json.dumps(value)}" for value in (one, two))
    twice = f"{{{first},{second}}}"
    for raw in (twice, json.dumps({**around, "in": 0})[:-2] + twice + "}"):
        error = refusal(raw.encode()).error
        assert error.code == "invalid_json"
        assert "given twice" in error.message


@given(OBJECT)
def test_words_are_counted_by_their_quotes(value: dict[str, Any]) -> None:
    def words(item: Any) -> int:
        if isinstance(item, dict):
            return len(item) + sum(map(words, item.values()))
        return sum(map(words, item)) if isinstance(item, list) else isinstance(item, str)

    assert count_words(json.dumps(value).encode()) == words(value)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_object_or_a_refusal(raw: bytes) -> None:
    try:
        assert isinstance(decode_object(raw), dict)
    except LineError as refused:
        assert refused.error.message.endswith(".")
        refused.error.message.encode()


@pytest.mark.parametrize(
    ("raw", "code", "said"),
    [
        (b"", "blank_line", "remove it"),
        (b" \t\r", "blank_line", "remove it"),
        (b'{"a": "\xff"}', "invalid_text", "byte 8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_text", "UTF-8"),
        (b'{"a": "\\ud800"}', "invalid_text", "'a' holds half"),
        (b'{"a": ["x", {"b": "\\udc00\\ud800"}]}', "invalid_text", "'a[1].b' holds half"),
        (b'{"\\ud800": 1}', "invalid_text", "A name holds half"),
        (b'{"a": {"b": ["\\u0000"]}}', "invalid_text", "'a.b[0]' holds a NUL"),
        (b'{"\\u0000": 1}', "invalid_text", "A name holds a NUL"),
        (b'{"a": "\x00"}', "invalid_json", "control character"),
        (b'{"a": NaN}', "invalid_json", "NaN is no number of JSON: write null"),
        (b'{"a": [-Infinity]}', "invalid_json", "-Infinity is no number"),
        (b'{"a": 1e999}', "invalid_json", "not valid JSON"),
        (b'{"a": 1}}', "invalid_json", "not valid JSON"),
        (b'{"a": 1', "invalid_json", "not valid JSON"),
        (b"{'a': 1}", "invalid_json", "column"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "invalid_json", "not valid JSON"),
        (b'{"a": 18446744073709551616}', "invalid_json", "64 bits"),
        (b'{"a": [-9223372036854775809]}', "invalid_json", "64 bits"),
        (b'{"a": 1, "a": 1}', "invalid_json", "'a' is given twice"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid_json", "byte order mark"),
        (nested(MAX_DEPTH + 1), "invalid_json", "nested"),
        (nested(500), "invalid_json", "nested"),
        (nested(100_000), "invalid_json", "nested"),
        (b'{"a":' * 100_000, "invalid_json", "nested"),
        (nested(500).replace(b"[]", b'["\\ud800"]'), "invalid_text", "surrogate"),
        (b"[1]", "not_an_object", "one object"),
        (b'"text"', "not_an_object", "one object"),
        (b"null", "not_an_object", "one object"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long", "1,048,576"),
    ],
)
def test_what_would_not_survive_is_refused(raw: bytes, code: str, said: str) -> None:
    error = refusal(raw).error
    assert error.code == code
    assert said in error.message


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"a": "\\u0000"}',
        rb'{"a": "\\\\\"u0000", "b": "\\"}',
        rb'{"a\"": "\":", "a": 1}',
        b'{"a": "\\ud83d\\ude00 \xe2\x80\xa8"}',
        b'{"a": 18446744073709551615, "b": -9223372036854775808}',
        b' {"a" : 1}\t\r',
        nested(MAX_DEPTH),
    ],
)
def test_unusual_but_sound_lines_are_read(raw: bytes) -> None:
    assert decode_object(raw) == json.loads(raw)


def test_a_line_of_exactly_the_limit_is_read() -> None:
    raw = b'{"a": "' + b"x" * (MAX_LINE_BYTES - 9) + b'"}'
    assert len(raw) == MAX_LINE_BYTES
    assert len(decode_object(raw)["a"]) == MAX_LINE_BYTES - 9


def test_a_refusal_repeats_only_a_little_of_the_line() -> None:
    long = "n" * 100_000
    for raw in (f'{{"{long}": 1, "{long}": 2}}', f'{{"{long}": "\\u0000"}}'):
        error = refusal(raw.encode()).error
        assert len(error.message) < 200
        assert len(error.param or "") <= 64

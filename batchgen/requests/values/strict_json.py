"""Decode one line of bytes to one JSON object, and refuse all that parsers read differently.

Refused are names given twice, integers of more than 64 bits, lone surrogates, NUL, NaN and deep
nesting: parsers disagree about them or repair them silently. A line that passes means the same to
every reader of the dataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NoReturn

import msgspec
import orjson

from batchgen.requests.values.line_error import LineError, quoted

MAX_LINE_BYTES: Final = 1 << 20  # of one record, without its line feed
MAX_DEPTH: Final = 64  # objects and lists inside one another
_PATH_SHOWN: Final = 64  # characters of a path that an error names at most
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_decode = msgspec.json.Decoder().decode


def decode_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of one line; raise LineError that says what to correct."""
    if len(raw) > MAX_LINE_BYTES:
        limit = f"{MAX_LINE_BYTES:,} bytes"
        raise LineError("line_too_long", f"The line is longer than {limit}: shorten or split it.")
    try:
        data = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_undecodable(raw, error)
    if type(data) is not dict:
        raise LineError(
            "not_an_object",
            "The line is not a JSON object: write one object, {…}, on each line.",
        )
    words = _count_words(data, 1)
    # A name given twice counts once in the object and twice in the text.
    if count_words(raw) != words:
        _refuse_nul(data)
        _refuse_repeated_names(raw)
    return data


def count_words(raw: bytes) -> int:
    """Return the number of names and strings in a valid JSON text, -1 if one holds a NUL."""
    if b"\\" not in raw:
        return raw.count(b'"') // 2
    # After escaped backslashes are removed, each backslash begins an escape of another character.
    text = raw.replace(b"\\\\", b"")
    if b"\\u0000" in text:
        return -1
    return (text.count(b'"') - text.count(b'\\"')) // 2


def _count_words(value: dict[str, Any] | list[Any], depth: int) -> int:
    """Count the names and strings inside; raise LineError for a value that would be changed."""
    if depth > MAX_DEPTH:
        raise LineError("invalid_json", f"The line is nested deeper than {MAX_DEPTH} levels.")
    strings = 0
    items: Any = value
    if type(value) is dict:
        strings = len(value)
        items = value.values()
    for item in items:
        kind = type(item)
        if kind is str:
            strings += 1
        elif kind is dict or kind is list:
            strings += _count_words(item, depth + 1)
        elif kind is int and not _INT_MIN <= item <= _INT_MAX:
            raise LineError(
                "invalid_json", "A number has more than 64 bits: write it as a string to keep it."
            )
    return strings


def _refuse_undecodable(raw: bytes, error: Exception) -> NoReturn:
    """Raise LineError with the reason of the decoder; slow, so only for bad lines."""
    if not raw.strip():
        raise LineError("blank_line", "The line is blank: remove it.") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        raise LineError(
            "invalid_text", f"The line is not UTF-8 at byte {bad.start + 1}: convert the file."
        ) from None
    if isinstance(error, RecursionError):
        raise LineError(
            "invalid_json", f"The line is nested deeper than {MAX_DEPTH} levels."
        ) from None
    if text.startswith("\ufeff"):
        raise LineError(
            "invalid_json", "A byte order mark stands inside the file: remove it."
        ) from None
    _refuse_lone_surrogates(text)
    _refuse_no_number(text)
    raise LineError("invalid_json", f"The line is not valid JSON: {_reason(raw, error)}.") from None


def _refuse_lone_surrogates(text: str) -> None:
    try:
        lenient = json.loads(text)
    except (ValueError, RecursionError):
        return
    for path, scalar in _strings(lenient):
        try:
            scalar.encode()
        except UnicodeEncodeError:
            raise LineError(
                "invalid_text",
                f"{_field(path)} holds half of a surrogate pair (\\ud800 to \\udfff): "
                "write the whole character.",
                path or None,
            ) from None


def _refuse_no_number(text: str) -> None:
    """Raise LineError for NaN and Infinity, which some programs write although JSON has none."""

    def refuse(word: str) -> NoReturn:
        raise LineError(
            "invalid_json", f"{word} is no number of JSON: write null, or leave the field out."
        ) from None

    with suppress(ValueError, RecursionError):
        json.loads(text, parse_constant=refuse)


def _reason(raw: bytes, error: Exception) -> str:
    """Return the parser's message and the column, 1-based."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as better:
        return f"{better.msg} at column {better.colno}"
    return str(error)


def _refuse_repeated_names(raw: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) != len(pairs):
            [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
            raise LineError("invalid_json", f"{quoted(name)} is given twice: keep one.")
        return names

    json.loads(raw, object_pairs_hook=check)


def _refuse_nul(data: dict[str, Any]) -> None:
    for path, text in _strings(data):
        if "\0" in text:
            raise LineError(
                "invalid_text", f"{_field(path)} holds a NUL character: remove it.", path or None
            )


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every name and string inside, with the path of its field, without recursion."""
    stack = [iter([("", value)])]
    while stack:
        for path, item in stack[-1]:
            if isinstance(item, str):
                yield path, item
            elif isinstance(item, dict | list):
                stack.append(_children(path, item))
                break
        else:
            stack.pop()


def _children(path: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield f"{path}[{i}]"[:_PATH_SHOWN], item
        return
    for name, item in value.items():
        yield path, name
        yield (f"{path}.{name}" if path else name)[:_PATH_SHOWN], item


def _field(path: str) -> str:
    return quoted(path) if path else "A name"

"""Plain lines: the common forms of a line, recognised by one typed decode.

Reading a million lines to check them is mostly Python calls. A plain line needs few: its types and
bounds are checked while it is decoded. Whatever is not plain, good or bad, is for LineParser, which
alone decides what a row means. A plain line is always one that LineParser accepts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from batchgen.io.fields import MAX_STOP_LENGTH, MAX_STOP_STRINGS, MAX_TOKENS, SHORTHAND_FIELDS
from batchgen.io.line_error import LineError
from batchgen.io.lines import MAX_ID_LENGTH, implicit_id
from batchgen.io.openai_lines import CHAT_URL
from batchgen.io.strict_json import MAX_LINE_BYTES, count_words, decode_object

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
_Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]


class _Message(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class _Request(TypedDict, total=False):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    prompt: Annotated[str, Meta(min_length=1)]
    max_tokens: _Tokens
    max_completion_tokens: _Tokens
    temperature: Annotated[float, Meta(ge=0, le=2)]
    top_p: Annotated[float, Meta(gt=0, le=1)]
    top_k: Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)]
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    stop: _Stop | Annotated[list[_Stop], Meta(min_length=1, max_length=MAX_STOP_STRINGS)]
    n: Literal[1]
    ignore_eos: bool
    return_token_ids: bool


class _Body(_Request, total=False):
    model: str


class _Line(_Request, total=False):
    id: _Id
    custom_id: _Id
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions"]
    body: _Body


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Line)
_decode = _decoder.decode


class PlainLines:
    """Recognises the plain lines of one job; an OpenAI line must not name another model."""

    def __init__(self, model: str | None) -> None:
        self._model = model

    def id_of(self, raw: bytes, row: int) -> str | None:
        """Return the id of a plain line, given or implicit; None where the line is not plain."""
        if len(raw) > MAX_LINE_BYTES:
            return None
        try:
            line = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        # A field that is unknown, or given twice, was dropped: the text has more words.
        if _count_words(line) != count_words(raw) and not _only_data_was_dropped(raw, line):
            return None
        if "body" in line:
            return line["custom_id"] if self._is_batch_line(line) else None
        if not _asks_one_thing(line) or "method" in line or "url" in line:
            return None
        if "custom_id" in line:
            return None if "id" in line else line["custom_id"]
        return line.get("id") or implicit_id(row)

    def _is_batch_line(self, line: dict[str, Any]) -> bool:
        if len(line) != 4 or not ("custom_id" in line and "method" in line and "url" in line):
            return False
        body = line["body"]
        asked = "messages" if line["url"] == CHAT_URL else "prompt"
        if asked not in body or not _asks_one_thing(body):
            return False
        return self._model is None or body.get("model", self._model) == self._model


def _asks_one_thing(request: dict[str, Any]) -> bool:
    return ("messages" in request) != ("prompt" in request) and not (
        "max_tokens" in request and "max_completion_tokens" in request
    )


def _only_data_was_dropped(raw: bytes, line: dict[str, Any]) -> bool:
    """Whether a shorthand line has further fields of the caller's at its top, and no others."""
    if "body" in line:
        return False
    try:
        data = decode_object(raw)
    except LineError:
        return False
    return data.get("messages") == line.get("messages") and SHORTHAND_FIELDS.keys().isdisjoint(
        data.keys() - line.keys()
    )


def _count_words(fields: dict[str, Any]) -> int:
    """Count the names and strings of a decoded line."""
    words = len(fields)
    for value in fields.values():
        kind = type(value)
        if kind is str:
            words += 1
        elif kind is list:  # messages, of two names and two strings each, or stop strings
            words += 4 * len(value) if type(value[0]) is dict else len(value)
        elif kind is dict:
            words += _count_words(value)
    return words

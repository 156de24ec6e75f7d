"""Plain lines: the common forms of a line, checked by one typed decode.

To check a million lines costs mostly Python calls. A plain line needs few of them, because msgspec
checks types and bounds while it decodes. LineParser reads all other lines, good or bad, and only it
decides what a row means. LineParser accepts every plain line.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypedDict

import msgspec
from msgspec import Meta

from batchgen.core.endpoints import CHAT
from batchgen.requests.columns import is_column
from batchgen.requests.dialect_rules import untaken
from batchgen.requests.fields import (
    MAX_ALTERNATIVES,
    MAX_BEAMS,
    MAX_LENGTH_PENALTY,
    MAX_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_SAMPLES,
    MAX_STOP_TOKENS,
    MAX_TOKENS,
    MAX_TOP_K,
)
from batchgen.requests.lines import MAX_ID_LENGTH, LineParser, implicit_id
from batchgen.requests.values.checks import MAX_STOP_LENGTH, MAX_STOP_STRINGS, MAX_TOKEN_ID
from batchgen.requests.values.line_error import LineError
from batchgen.requests.values.strict_json import MAX_LINE_BYTES, count_words, decode_object

MOST_COLUMNS: Final = 4_096  # names that are remembered
LONGEST_COLUMN: Final = 64  # characters of such a name

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
_Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]
_TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
_Alternatives = Annotated[int, Meta(ge=0, le=MAX_ALTERNATIVES)]
_Penalty = Annotated[float, Meta(ge=-MAX_PENALTY, le=MAX_PENALTY)]
# Fields whose values may contradict each other, the job's defaults or the context. `max_tokens` may
# too, but has a faster check of its own, because nearly every line sets it.
_COUPLED = frozenset(
    {"n", "num_beams", "min_tokens", "logprobs", "top_logprobs", "max_completion_tokens"}
)


class _Message(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class _Request(TypedDict, total=False):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    prompt: Annotated[str, Meta(min_length=1)] | Annotated[list[_TokenId], Meta(min_length=1)]
    max_tokens: _Tokens
    max_completion_tokens: _Tokens
    temperature: Annotated[float, Meta(ge=0, le=2)]
    top_p: Annotated[float, Meta(gt=0, le=1)]
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOP_K)]
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    stop: _Stop | Annotated[list[_Stop], Meta(min_length=1, max_length=MAX_STOP_STRINGS)]
    n: Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
    ignore_eos: bool
    return_token_ids: bool
    min_p: Annotated[float, Meta(ge=0, le=1)]
    repetition_penalty: Annotated[float, Meta(gt=0, le=MAX_REPETITION_PENALTY)]
    presence_penalty: _Penalty
    frequency_penalty: _Penalty
    stop_token_ids: Annotated[list[_TokenId], Meta(min_length=1, max_length=MAX_STOP_TOKENS)]
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
    num_beams: Annotated[int, Meta(ge=1, le=MAX_BEAMS)]
    length_penalty: Annotated[float, Meta(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)]
    early_stopping: bool | Literal["never"]
    logprobs: bool
    top_logprobs: _Alternatives
    prompt_logprobs: _Alternatives


# The decoder tries names in this order, bases first: it is the order of most lines.
class _Model(TypedDict, total=False):
    model: str


class _Body(_Model, _Request, total=False):
    pass


class _Envelope(TypedDict, total=False):
    id: _Id
    custom_id: _Id
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions"]
    body: _Body


class _Line(_Envelope, _Request, total=False):
    pass


_FIELDS = _Line.__required_keys__ | _Line.__optional_keys__
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Line)
_decode = _decoder.decode


class PlainLines:
    """Recognises the plain lines of one job. `parser` reads all other lines."""

    def __init__(self, parser: LineParser) -> None:
        self._parser = parser
        self._model = parser.model
        self._url = parser.expected.url
        # Names that are known to be columns. Most lines of a job have the same ones.
        self._columns = set(parser.columns)
        # If a column has the name of a field, the typed decode would read it as that field.
        self._refused = not _FIELDS.isdisjoint(parser.columns)
        # Fields that decide whether the dialect of an endpoint takes the line.
        self._untaken = frozenset[str]()
        if parser.dialect is not None:
            self._untaken = untaken(parser.dialect) | {"prompt"}
        # The bounds of max_tokens in a line that sets none of the coupled fields.
        self._least = parser.params.min_tokens
        self._most = MAX_TOKENS if parser.context is None else parser.context - 1

    def id_of(self, raw: bytes, row: int) -> str | None:
        """Return the id of a plain line, given or implicit; None if the line is not plain."""
        if len(raw) > MAX_LINE_BYTES or self._refused:
            return None
        try:
            line = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        # If the decoder dropped a field, unknown or given twice, the text has more words.
        if _count_words(line) != count_words(raw) and not self._only_data_was_dropped(raw, line):
            return None
        if "body" in line:
            return line["custom_id"] if self._is_batch_line(line) else None
        if self._url or not self._is_request(line) or "method" in line or "url" in line:
            return None
        if "custom_id" in line:
            return None if "id" in line else line["custom_id"]
        return line.get("id") or implicit_id(row)

    def _only_data_was_dropped(self, raw: bytes, line: dict[str, Any]) -> bool:
        """Return whether all that the decoder dropped are columns of a shorthand line."""
        if "body" in line:
            return False
        try:
            data = decode_object(raw)
        except LineError:
            return False
        if data.get("messages") != line.get("messages"):
            return False
        names = data.keys() - line.keys()
        return names <= self._columns or self._are_columns(names)

    def _are_columns(self, names: set[str]) -> bool:
        found = {name for name in names if name in self._columns or is_column(name)}
        if len(self._columns) < MOST_COLUMNS:
            self._columns |= {name for name in found if len(name) <= LONGEST_COLUMN}
        return len(found) == len(names)

    def _is_batch_line(self, line: dict[str, Any]) -> bool:
        if len(line) != 4 or not ("custom_id" in line and "method" in line and "url" in line):
            return False
        if self._url and line["url"] != self._url:
            return False
        body = line["body"]
        asked = "messages" if line["url"] == CHAT else "prompt"
        if asked not in body or not self._is_request(body):
            return False
        return self._model is None or body.get("model", self._model) == self._model

    def _is_request(self, request: dict[str, Any]) -> bool:
        """Return whether it has one prompt, and its parameters fit each other and the job's."""
        if ("messages" in request) == ("prompt" in request):
            return False
        if self._untaken and not self._untaken.isdisjoint(request):
            return False
        if not _COUPLED.isdisjoint(request):
            return self._agrees(request)
        asked = request.get("max_tokens")
        return asked is None or self._least <= asked <= self._most

    def _agrees(self, request: dict[str, Any]) -> bool:
        own = {name: value for name, value in request.items() if name in _COUPLED}
        asked = own.pop("max_completion_tokens", None)
        if "max_tokens" in request:
            if asked is not None:
                return False
            asked = request["max_tokens"]
        if asked is not None:
            own["max_tokens"] = asked
        try:
            self._parser.filled(own)
        except LineError:
            return False
        return True


def _count_words(fields: dict[str, Any]) -> int:
    """Count the names and strings of a decoded line."""
    words = len(fields)
    for value in fields.values():
        kind = type(value)
        if kind is str:
            words += 1
        elif kind is list:  # messages, of two names and two strings each, stop strings or ids
            kind = type(value[0])
            words += 4 * len(value) if kind is dict else len(value) if kind is str else 0
        elif kind is dict:
            words += _count_words(value)
    return words

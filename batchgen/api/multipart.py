"""A multipart form as it arrives: small fields, and one file that is a stream.

source ──► MultipartParser ──► events ─┬─► fields: {name: text}
                                       └─► the file: read() by the one who stores it
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from batchgen.api.errors import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE: Final = "file"  # the name of the part that is a stream
MAX_PARTS: Final = 64
MAX_FIELD_BYTES: Final = 64 << 10  # of all fields together
CHUNK_BYTES: Final = 1 << 18

Event = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class _Head:
    """The name of a part, and that of its file."""

    name: str
    filename: str


class FormReader:
    """Reads a form from a source that may block.

    form = FormReader(source, content_type, fields={"purpose"})
    stream = form.open_file()          # the part `file`; form.filename is the name it came with
    … stream.read() …
    form.finish()                      # reads what follows the file
    form.fields                        # {"purpose": "batch"}
    """

    def __init__(self, source: BinaryIO, content_type: str, *, fields: Collection[str]) -> None:
        """Prepare to read; raise ApiError if the body is no form."""
        self.fields: dict[str, str] = {}
        self.filename = ""
        self._source = source
        self._names = frozenset(fields)
        self._events: deque[Event] = deque()
        self._parser = MultipartParser(_boundary(content_type), _callbacks(self._events.append))
        self._stream: FileStream | None = None
        self._parts = self._field_bytes = 0
        self._ended = False

    def open_file(self) -> BinaryIO:
        """Read up to the file and return it as a stream; raise ApiError if there is none."""
        while self._stream is None:
            if not self._read_part():
                raise ApiError(400, "The form has no file.", code="missing_file", param=FILE)
        return cast("BinaryIO", self._stream)

    def finish(self) -> None:
        """Read the rest of the file, if any, and the fields after it."""
        assert self._stream is not None, "open_file() comes first"
        while self._stream.read():
            pass
        while self._read_part():
            pass

    def next_event(self) -> Event:
        """Return the next event of the parser; raise ApiError where the form is broken."""
        while not self._events:
            chunk = self._source.read(CHUNK_BYTES)
            if not chunk:
                raise ApiError(400, "The form has no end.", code="incomplete_body")
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise ApiError(400, "The form cannot be read.", code="invalid_form") from None
        return self._events.popleft()

    def _read_part(self) -> bool:
        """Read a field, or the head of the file; return False at the end of the form."""
        if self._ended or self.next_event()[0] == "end":
            self._drain()
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ApiError(400, f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        head = _head_of(self._headers())
        if head.name == FILE and self._stream is None:
            self.filename = head.filename
            self._stream = FileStream(self)
        elif head.name in self._names and head.name not in self.fields:
            self.fields[head.name] = self._value(head.name)
        else:
            again = head.name == FILE or head.name in self.fields
            kind = "Repeated" if again else "Unknown"
            message = f"{kind} parameter: {head.name[:100]!r}."
            raise ApiError(400, message, code="unknown_parameter", param=head.name[:100])
        return True

    def _headers(self) -> dict[str, bytes]:
        headers: dict[str, bytes] = {}
        name = value = b""
        while (event := self.next_event())[0] != "headers_finished":
            match event:
                case "header_field", data:
                    name += data
                case "header_value", data:
                    value += data
                case "header_end", _:
                    headers[name.decode("latin-1").lower()] = value
                    name = value = b""
        return headers

    def _value(self, name: str) -> str:
        value = bytearray()
        while (event := self.next_event())[0] != "part_end":
            value += event[1]
            self._field_bytes += len(event[1])
            if self._field_bytes > MAX_FIELD_BYTES:
                raise ApiError(413, "A field is too long.", code="body_too_large", param=name)
        return _text(bytes(value), name)

    def _drain(self) -> None:
        """Read the body to its end: what follows a form means nothing."""
        self._ended = True
        while self._source.read(CHUNK_BYTES):
            pass


class FileStream(io.RawIOBase):
    """The bytes of the file of a form."""

    def __init__(self, form: FormReader) -> None:
        self._form = form
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        """Return True: it is a source of bytes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; b"" at the end."""
        while not self._left and not self._ended:
            kind, self._left = self._form.next_event()
            self._ended = kind == "part_end"
        if size < 0 or size >= len(self._left):
            taken, self._left = self._left, b""
        else:
            taken, self._left = self._left[:size], self._left[size:]
        return taken


def _callbacks(emit: Callable[[Event], None]) -> MultipartCallbacks:
    def notifying(kind: str) -> Callable[[], None]:
        return lambda: emit((kind, b""))

    def carrying(kind: str) -> Callable[[bytes, int, int], None]:
        return lambda data, start, end: emit((kind, data[start:end]))

    notices = ("part_begin", "header_end", "headers_finished", "part_end", "end")
    pieces = ("header_field", "header_value", "part_data")
    callbacks = {
        **{f"on_{kind}": notifying(kind) for kind in notices},
        **{f"on_{kind}": carrying(kind) for kind in pieces},
    }
    return cast("MultipartCallbacks", callbacks)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:  # as RFC 2046 has it
        raise ApiError(415, "Send a multipart/form-data body.", code="invalid_form")
    return boundary


def _head_of(headers: dict[str, bytes]) -> _Head:
    disposition = headers.get("content-disposition", b"").decode("latin-1")
    _, options = parse_options_header(disposition)
    name = _text(options.get(b"name", b""), "name")
    return _Head(name, _text(options.get(b"filename", b""), "filename"))


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ApiError(400, f"{name} is not UTF-8.", code="invalid_form", param=name) from None

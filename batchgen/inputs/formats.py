"""Recognise a file that is not JSON Lines by its first bytes.

    head ──► magic number?  UTF-16, UTF-32?  binary?
         ──► one JSON document over all lines?  a table?  text?      ──► Format ──► InvalidInput
         ──► else JSON Lines, good or bad: None, and each line is checked

A file of another format gets one error for the whole file, not one for each line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

HEAD_BYTES: Final = 1 << 18  # a format is recognised by so many bytes
_LOOKED_AT: Final = 16  # lines of a file that may be plain text
_DELIMITERS: Final = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons", "|": "CSV with bars"}
_LONGEST_NAME: Final = 64  # characters of a column name in a table
_BLANK: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format that is not JSON Lines: its name, and how to convert the file."""

    name: str
    remedy: str


def _archive(name: str, program: str) -> Format:
    return Format(name=name, remedy=f"decompress it first, `{program} FILE | batchgen … -`")


_ROWS: Final = 'write its rows as JSON, one object a line, such as {"prompt": …}'
_UNPACK: Final = "unpack it first"


def _utf(name: str) -> Format:
    return Format(name=name, remedy=f"convert it, `iconv -f {name} -t UTF-8 FILE`")


#: {first bytes: format}; the first entry that fits is used.
MAGIC: Final[dict[bytes, Format]] = {
    b"\x1f\x8b": _archive("gzip-compressed", "gunzip -c"),
    b"\x28\xb5\x2f\xfd": _archive("zstd-compressed", "zstd -dc"),
    b"\xfd7zXZ\x00": _archive("xz-compressed", "xz -dc"),
    b"BZh": _archive("bzip2-compressed", "bzip2 -dc"),
    b"\x04\x22\x4d\x18": _archive("lz4-compressed", "lz4 -dc"),
    b"7z\xbc\xaf\x27\x1c": Format(name="a 7z archive", remedy=_UNPACK),
    b"PK\x03\x04": Format(name="a ZIP archive", remedy=_UNPACK),
    b"PAR1": Format(name="a Parquet file", remedy=_ROWS),
    b"ARROW1": Format(name="an Arrow file", remedy=_ROWS),
    b"FEA1": Format(name="a Feather file", remedy=_ROWS),
    b"\xff\xff\xff\xff": Format(name="an Arrow stream", remedy=_ROWS),
    b"ORC": Format(name="an ORC file", remedy=_ROWS),
    b"Obj\x01": Format(name="an Avro file", remedy=_ROWS),
    b"SQLite format 3\x00": Format(name="a SQLite database", remedy=_ROWS),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Format(name="an old Excel or Office file", remedy=_ROWS),
    b"%PDF-": Format(name="a PDF file", remedy=_ROWS),
    b"GGUF": Format(name="a model (GGUF)", remedy="import it with `batchgen models import`"),
    b"\xff\xfe\x00\x00": _utf("UTF-32"),
    b"\x00\x00\xfe\xff": _utf("UTF-32"),
    b"\xff\xfe": _utf("UTF-16"),
    b"\xfe\xff": _utf("UTF-16"),
}
_EXCEL: Final = Format(name="an Excel file", remedy=_ROWS)
_BINARY: Final = Format(name="binary data", remedy="check that it is the file you mean")
_ARRAY: Final = Format(
    name="a JSON array", remedy="write its items one a line, `jq -c '.[]' FILE > FILE.jsonl`"
)
_PRETTY: Final = Format(
    name="JSON over several lines",
    remedy="write each object on one line, `jq -c . FILE > FILE.jsonl`",
)
_TEXT: Final = Format(
    name="plain text",
    remedy="write each prompt as JSON, `jq -Rc '{prompt: .}' FILE > FILE.jsonl`",
)


def recognise(head: bytes) -> Format | None:
    """Return the format of a file by its first bytes, None for JSON Lines.

    `head` is the whole file, or at least HEAD_BYTES of it.
    """
    found = _by_magic(head) or _by_zeros(head)
    if found is not None:
        return found
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)
    for look in _LOOKS:
        if (found := look(text)) is not None:
            return found
    return None


def _by_magic(head: bytes) -> Format | None:
    for magic, found in MAGIC.items():
        if head.startswith(magic):
            is_excel = magic == b"PK\x03\x04" and (b"xl/" in head or b"[Content_Types]" in head)
            return _EXCEL if is_excel else found
    return None


def _by_zeros(head: bytes) -> Format | None:
    """Recognise UTF-16 and UTF-32 without a byte order mark: JSON begins with ASCII characters."""
    start = [byte != 0 for byte in head[:8]]
    if start == [True, False] * 4:
        return _utf("UTF-16LE")
    if start == [False, True] * 4:
        return _utf("UTF-16BE")
    if start == [True, False, False, False] * 2:
        return _utf("UTF-32LE")
    if start == [False, False, False, True] * 2:
        return _utf("UTF-32BE")
    return _BINARY if head.startswith(b"\0") else None


def _as_document(text: bytes) -> Format | None:
    """Recognise a JSON list, or a JSON document that does not end in the first line."""
    if not text.startswith((b"{", b"[")):
        return None
    line, line_feed, rest = text.partition(b"\n")
    is_list = text.startswith(b"[")
    if _is_json(line):
        return _ARRAY if is_list and not rest.strip() else None
    if is_list:
        return _ARRAY
    if not line_feed:  # a single line that is bad, or is longer than the head
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        cut = len(text) >= HEAD_BYTES // 2 and line.strip() == b"{"
        return _PRETTY if cut else None
    return _PRETTY if end > len(line.decode("utf-8", "replace")) else None


def _as_table(text: bytes) -> Format | None:
    """Recognise a table: the first row holds names, the second has as many cells."""
    if text.startswith((b"{", b"[")):
        return None
    lines = text.decode("utf-8", "replace").splitlines()
    for delimiter, name in _DELIMITERS.items():
        try:
            rows = list(islice(csv.reader(lines, delimiter=delimiter), 2))
        except csv.Error:
            continue
        if len(rows) == 2 and len(rows[0]) == len(rows[1]) > 1 and all(map(_is_name, rows[0])):
            remedy = "write each row as a JSON object, with Python's csv.DictReader and json.dumps"
            return Format(name=f"a table ({name})", remedy=remedy)
    return None


def _as_text(text: bytes) -> Format | None:
    """Recognise plain text: two lines or more, and none begins like an object or is JSON."""
    lines = [line for line in text.split(b"\n", _LOOKED_AT)[:_LOOKED_AT] if line.strip()]
    is_text = len(lines) > 1 and not any(line.lstrip().startswith(b"{") for line in lines)
    return _TEXT if is_text and not any(_is_json(line) for line in lines) else None


_LOOKS: Final[tuple[Callable[[bytes], Format | None], ...]] = (_as_document, _as_table, _as_text)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_name(cell: str) -> bool:
    return cell == cell.strip() and 0 < len(cell) <= _LONGEST_NAME and cell.isprintable()

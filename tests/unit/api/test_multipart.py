"""A form is read as it arrives, wherever the chunks are cut, and a broken one is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, cast

import pytest

from batchgen.api.errors import ApiError
from batchgen.api.multipart import FormReader

CONTENT_TYPE = "multipart/form-data; boundary=abc"
FIELDS = {"purpose", "expires_after[seconds]"}
LINES = b'{"a": 1}\r\n\r\n--abd\r\n--ab\n' * 3  # all but a boundary


class Dribble(io.RawIOBase):
    """Gives a body in pieces of a size."""

    def __init__(self, body: bytes, piece: int) -> None:
        self._pieces: Iterator[bytes] = (body[i : i + piece] for i in range(0, len(body), piece))

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


def part(name: str, value: bytes, *, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--abc\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def reader(body: bytes, *, piece: int = 1 << 20, content_type: str = CONTENT_TYPE) -> FormReader:
    return FormReader(cast("BinaryIO", Dribble(body, piece)), content_type, fields=FIELDS)


def read(form: FormReader) -> bytes:
    stream = form.open_file()
    read = b"".join(iter(lambda: stream.read(7), b""))
    form.finish()
    return read


WHOLE = (
    part("purpose", b"batch")
    + part("file", LINES, filename="zürich ../x.jsonl")
    + part("expires_after[seconds]", b"3600")
    + b"--abc--\r\nepilogue"
)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 64, 1 << 20])
def test_a_form_is_the_same_however_it_is_cut(piece: int) -> None:
    form = reader(WHOLE, piece=piece)
    assert read(form) == LINES
    assert form.fields == {"purpose": "batch", "expires_after[seconds]": "3600"}
    assert form.filename == "zürich ../x.jsonl"


def test_a_file_that_nobody_reads_is_passed_over() -> None:
    form = reader(WHOLE, piece=5)
    form.open_file()
    form.finish()
    assert form.fields["expires_after[seconds]"] == "3600"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (part("purpose", b"batch") + b"--abc--", 400, "missing_file"),
        (b"--abc--", 400, "missing_file"),
        (b"", 400, "incomplete_body"),
        (part("file", LINES, filename="x"), 400, "incomplete_body"),
        (WHOLE[:-14], 400, "incomplete_body"),
        (b"no form at all", 400, "invalid_form"),
        (part("file", b"1") + part("file", b"2") + b"--abc--", 400, "unknown_parameter"),
        (part("file", b"1") + part("purpose", b"2") * 2 + b"--abc--", 400, "unknown_parameter"),
        (part("file", b"1") + part("else", b"2") + b"--abc--", 400, "unknown_parameter"),
        (part("purpose", b"x" * 65537) + part("file", b"1") + b"--abc--", 413, "body_too_large"),
        (part("purpose", b"\xff") + part("file", b"1") + b"--abc--", 400, "invalid_form"),
        (b"--abc\r\n" + b"x: y\r\n" * 100 + b"\r\n\r\n--abc--", 400, "invalid_form"),
        (b"--abc\r\nx: " + b"y" * 100_000 + b"\r\n\r\n\r\n--abc--", 400, "invalid_form"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_form_that_cannot_be_used_is_refused(body: bytes, status: int, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(reader(body))
    assert (refused.value.status_code, refused.value.problem.code) == (status, code)


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 71],
)
def test_another_body_is_refused(content_type: str) -> None:
    with pytest.raises(ApiError) as refused:
        reader(WHOLE, content_type=content_type)
    assert refused.value.status_code == 415

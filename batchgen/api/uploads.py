"""Uploads: the file of a form goes to its writer while it arrives, never into a second file."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar, cast

from starlette.requests import Request

from batchgen.api.body_source import read_body
from batchgen.api.multipart import FormReader

Stored = TypeVar("Stored")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Generic[Stored]):
    """A form that has arrived, to its end."""

    # what the writer returned
    stored: Stored
    # as the sender wrote it: a label, never a path
    filename: str
    # {name: text} of the fields that were sent
    fields: Mapping[str, str]


async def receive(
    request: Request,
    *,
    fields: Collection[str],
    writer: Callable[[BinaryIO], Stored],
    check: Callable[[FormReader], object] = lambda _: None,
) -> Received[Stored]:
    """Receive a form with the part `file` and these optional fields, in any order.

    `writer` is called in a thread with the file as a stream. It must store what it reads, so that
    nothing refers to it yet. The fields may come later than the file: its end is read only when the
    whole form is, and `check` has not raised. If the upload breaks off, or the form cannot be used,
    reading raises in the writer, so that it leaves nothing.

        received = await receive(request, fields={"purpose"}, writer=service.files.store)
        file = await run_in_threadpool(service.files.create, received.stored, …)
    """
    content_type = request.headers.get("content-type", "")

    def read(body: BinaryIO) -> Received[Stored]:
        form = FormReader(body, content_type, fields=fields)
        stored = writer(cast("BinaryIO", _WholeForm(form, check)))
        return Received(stored=stored, filename=form.filename, fields=form.fields)

    return await read_body(request, read)


class _WholeForm(io.RawIOBase):
    """The file of a form, which ends when the form has and was checked."""

    def __init__(self, form: FormReader, check: Callable[[FormReader], object]) -> None:
        self._form = form
        self._file = form.open_file()
        self._check = check

    def readable(self) -> bool:
        """Return True: it is a source of bytes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; b"" at the end."""
        if piece := self._file.read(size):
            return piece
        self._form.finish()
        self._check(self._form)
        return b""

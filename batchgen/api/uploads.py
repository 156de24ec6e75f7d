"""Uploads: the file of a form goes to its writer while it arrives, never into a second file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

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
    request: Request, *, fields: Collection[str], writer: Callable[[BinaryIO], Stored]
) -> Received[Stored]:
    """Receive a form with the part `file` and these optional fields, in any order.

    `writer` is called in a thread with the file as a stream. It must store what it reads, so that
    nothing refers to it yet; the fields may come later than the file. If the upload breaks off, or
    the form cannot be used, reading raises ApiError in the writer, or `receive` does after it.

        received = await receive(request, fields={"purpose"}, writer=service.files.store)
        file = await run_in_threadpool(service.files.create, received.stored, …)
    """
    content_type = request.headers.get("content-type", "")

    def read(body: BinaryIO) -> Received[Stored]:
        form = FormReader(body, content_type, fields=fields)
        stored = writer(form.open_file())
        form.finish()
        return Received(stored=stored, filename=form.filename, fields=form.fields)

    return await read_body(request, read)

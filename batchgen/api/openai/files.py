"""/v1/files: upload, list, find, read and delete files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from batchgen.api.auth import TenantService
from batchgen.api.errors import ApiError
from batchgen.api.multipart import FormReader
from batchgen.api.openai import schemas
from batchgen.api.openai.ids import read_file, show_file
from batchgen.api.openai.ranges import read_range
from batchgen.api.openai.views import file_json, page, reply
from batchgen.api.stored_file import StoredFile
from batchgen.api.streaming import stream
from batchgen.api.uploads import Received, receive
from batchgen.batches.file_records import NewFile, Purpose
from batchgen.service.files import LIST_LIMIT, Content, Files, check_file

router = APIRouter(prefix="/files", tags=["files"])

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": [str(Purpose.BATCH)]},
                        ANCHOR: {"type": "string", "enum": ["created_at"]},
                        SECONDS: {"type": "integer"},
                    },
                }
            }
        },
    }
}
BYTES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
    }
    for status, description in {200: "The file", 206: "A range of the file"}.items()
}


@router.post("", response_model=schemas.File, openapi_extra=FORM)
async def create_file(request: Request, service: TenantService) -> Response:
    """Store a file of requests, one JSON object a line. Its lines are checked by a batch."""
    files = service.files
    received = await receive(
        request,
        fields={"purpose", ANCHOR, SECONDS},
        writer=files.store,
        check=lambda form: check_file(_new_file(form)),
    )
    new = _new_file(received)
    return reply(file_json(await run_in_threadpool(files.register, received.stored, new)))


@router.get("", response_model=schemas.FileList)
def list_files(
    service: TenantService,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=LIST_LIMIT)] = LIST_LIMIT,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """Return files by age. Results of a batch are listed once it has ended."""
    found = service.files.list(
        purpose=purpose,
        after=None if after is None else read_file(after, param="after"),
        limit=limit + 1,
        ascending=order == "asc",
    )
    return reply(page(found, limit, file_json))


@router.get("/{file_id}", response_model=schemas.File)
def retrieve_file(service: TenantService, file_id: str) -> Response:
    """Return what is known of a file."""
    return reply(file_json(service.files.get(read_file(file_id))))


@router.delete("/{file_id}", response_model=schemas.DeletedFile)
def delete_file(service: TenantService, file_id: str) -> Response:
    """Delete a file. The results of a batch go from the disk with the last of its two files."""
    service.files.delete(read_file(file_id))
    return reply({"id": file_id, "object": "file", "deleted": True})


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=BYTES)
def retrieve_file_content(
    request: Request,
    service: TenantService,
    file_id: str,
    range_: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Return the bytes of a file, or the range of them that the header Range asks for.

    While a batch goes on, its files have the lines that are finished so far, in input order, and
    the answer has the header `X-Incomplete: true`.
    """
    stored = read_file(file_id)
    content = service.files.content(stored)
    headers = {
        "etag": f'"{show_file(stored)}"',
        "content-disposition": "attachment",
        "x-content-type-options": "nosniff",
    }
    if content.path is not None:
        return StoredFile(content.path, media_type="application/jsonl", headers=headers)
    is_wanted = if_range in (None, headers["etag"])
    lines = partial(stream, request, media_type="application/jsonl")
    return _lines(lines, service.files, content, headers, range_ if is_wanted else None)


def _lines(
    answer: Callable[..., Response],
    files: Files,
    content: Content,
    headers: dict[str, str],
    range_: str | None,
) -> Response:
    pieces = content.lines
    assert pieces is not None, "what has no path has lines"
    if not content.is_complete:
        incomplete = {"x-incomplete": "true", "cache-control": "no-store"}
        del headers["etag"]
        return answer(pieces, headers={**headers, **incomplete})
    headers["accept-ranges"] = "bytes"
    part = None
    if range_ is not None:
        part = read_range(range_, files.get(content.file.id).bytes or 0)
    if part is None:
        return answer(pieces, headers=headers)
    return answer(part.of(pieces), status=206, headers={**headers, **part.headers})


def _new_file(form: FormReader | Received[Any]) -> NewFile:
    new = NewFile(filename=form.filename, expires_after=_expiry(form.fields))
    _check_purpose(form.fields)
    return new


def _check_purpose(fields: Mapping[str, str]) -> None:
    purpose = fields.get("purpose")
    if purpose != Purpose.BATCH:
        said = "is missing" if purpose is None else "cannot be used"
        raise ApiError(
            400,
            f"'purpose' {said}: files are for batches, 'batch'.",
            code="invalid_parameter",
            param="purpose",
        )


def _expiry(fields: Mapping[str, str]) -> float | None:
    """Return the seconds of `expires_after`, None without it; raise ApiError."""
    anchor, seconds = fields.get(ANCHOR), fields.get(SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or seconds is None or not seconds.isdecimal() or len(seconds) > 12:
        raise ApiError(
            400,
            "'expires_after' needs the anchor created_at and whole seconds.",
            code="invalid_parameter",
            param="expires_after",
        )
    return float(seconds)

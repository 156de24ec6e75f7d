"""Results of a job as one stream, made while it is sent, and the files of its dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from batchgen.api.auth import TenantService
from batchgen.api.errors import ApiError
from batchgen.api.native.replies import reply
from batchgen.api.native.schemas.catalogue import DatasetFileList, Verification
from batchgen.api.stored_file import StoredFile
from batchgen.api.streaming import stream
from batchgen.dataset.manifest import MANIFEST
from batchgen.service.results import Results

router = APIRouter(prefix="/jobs/{ref}", tags=["results"])


class Format(StrEnum):
    """The form of a stream."""

    JSONL = "jsonl"  #: One JSON object a row.
    OPENAI = "openai"  #: Lines of OpenAI's output and error files.
    ARROW = "arrow"  #: An Arrow IPC stream.
    PARQUET = "parquet"  #: One Parquet file.


MEDIA_TYPES = {
    Format.JSONL: "application/x-ndjson",
    Format.OPENAI: "application/x-ndjson",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.PARQUET: "application/vnd.apache.parquet",
}
SUFFIXES = {
    Format.JSONL: "jsonl",
    Format.OPENAI: "openai.jsonl",
    Format.ARROW: "arrows",
    Format.PARQUET: "parquet",
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows",
        "content": {
            media: {"schema": {"type": "string", "format": "binary"}}
            for media in sorted(set(MEDIA_TYPES.values()))
        },
    }
}
FILE: dict[int | str, dict[str, Any]] = {
    statuses: {
        "description": description,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
    for statuses, description in {200: "The file", 206: "A range of the file"}.items()
}


class ResultsQuery(BaseModel):
    """The form of the results."""

    model_config = ConfigDict(extra="forbid")

    format: Format = Format.JSONL
    # the rows that are finished so far, while there is no dataset
    partial: bool = False


@router.get("/results", response_class=StreamingResponse, responses=STREAMED)
def stream_results(
    request: Request,
    service: TenantService,
    ref: str,
    query: Annotated[ResultsQuery, Query()],
) -> Response:
    """Return every row in input order, answered or failed.

    Before the job has ended this is 409, except with `partial`: then the answer has the header
    `X-Incomplete: true`.
    """
    job, form = service.job(ref), query.format
    pieces = _streams(service.results)[form](job.public_id, partial=query.partial)
    headers = {
        "content-disposition": f'attachment; filename="{job.public_id}.{SUFFIXES[form]}"',
        "x-content-type-options": "nosniff",
    }
    if job.dataset_path is None:
        headers["x-incomplete"] = "true"
    return stream(request, pieces, media_type=MEDIA_TYPES[form], headers=headers)


@router.get("/files", response_model=DatasetFileList)
def list_dataset_files(service: TenantService, ref: str) -> Response:
    """Return the files of the finished dataset. To copy it, fetch them all, the manifest last."""
    job, files = service.job(ref), service.results.files(ref)
    return reply(
        {
            "data": [asdict(entry) for entry in files],
            "manifest": MANIFEST,
            "manifest_sha256": job.manifest_sha256,
        }
    )


@router.get("/verification", response_model=Verification)
def verify_dataset(service: TenantService, ref: str) -> Response:
    """Compare every file of the finished dataset with its SHA-256 sum; it reads all of them."""
    folder = str(service.results.dataset(ref))
    # a manifest that cannot be read is named with its folder, which is the server's own
    found = service.results.verify(ref)
    problems = [each.replace(f"{folder}/", "").replace(folder, "The dataset") for each in found]
    return reply({"ok": not problems, "problems": problems})


@router.get("/files/{path:path}", response_class=StoredFile, responses=FILE)
def download_file(service: TenantService, ref: str, path: str) -> Response:
    """Return one file of the finished dataset, or the ranges that the header Range asks for."""
    found = service.results.file(ref, path)
    if found is None:
        raise ApiError(404, f"The dataset has no file {path!r}.", code="file_not_found")
    headers = {"x-content-type-options": "nosniff"}
    return StoredFile(found, media_type="application/octet-stream", headers=headers)


def _streams(results: Results) -> dict[Format, Callable[..., Iterator[bytes]]]:
    def openai(ref: str, *, partial: bool) -> Iterator[bytes]:
        return results.openai_lines(ref, errors=None, partial=partial)

    return {
        Format.JSONL: results.lines,
        Format.OPENAI: openai,
        Format.ARROW: results.arrow,
        Format.PARQUET: results.parquet,
    }

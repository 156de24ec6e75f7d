"""Submit a job: its parameters are in the query, its rows are the body, which is a stream."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, Json

from batchgen.api.auth import TenantService
from batchgen.api.body_source import read_body
from batchgen.api.native.replies import job_path, job_shown, reply
from batchgen.api.native.schemas.jobs import CreatedJob
from batchgen.inputs.survey import OnInvalid
from batchgen.service.submission import Submission

router = APIRouter(prefix="/jobs", tags=["jobs"])

ROWS = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class SubmissionQuery(BaseModel):
    """The parameters of a job."""

    model_config = ConfigDict(extra="forbid")

    model: str
    name: str | None = None
    # a higher number goes first
    priority: int = Field(0, ge=-(1 << 31), le=(1 << 31) - 1)
    # RFC 3339, or what `batchgen submit` takes
    not_before: str | None = None
    # hours of the day, such as 22:00-06:00 Europe/Berlin
    window: str | None = None
    deadline: str | None = None
    on_invalid: OnInvalid = OnInvalid.REFUSE
    # decoding parameters of every row that does not set them, a JSON object
    params: Json[dict[str, Any]] | None = None


@router.post("", status_code=201, response_model=CreatedJob, openapi_extra=ROWS)
async def create_job(
    request: Request,
    service: TenantService,
    query: Annotated[SubmissionQuery, Query()],
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=256)] = None,
) -> Response:
    """Store the rows of the body, JSON Lines as `batchgen submit` takes them, and queue a job.

    Two requests with one `Idempotency-Key` make one job; 409 if they differ. Lines that cannot be
    used are answered with 400, and no job is made: `errors` lists the first of them, `total` says
    how many there are. With `on_invalid=row-error` they become error rows.
    """
    notices: list[str] = []
    fields = query.model_dump()
    submission = Submission(
        **{**fields, "params": fields["params"] or {}}, idempotency_key=idempotency_key
    )

    def submit(body: BinaryIO) -> str:
        return service.submit(body, submission, notice=notices.append).public_id

    public_id = await read_body(request, submit)
    view = await run_in_threadpool(partial(service.status, public_id))
    created = {**job_shown(view), "notices": notices}
    return reply(created, status=201, headers={"location": job_path(view)})

"""Jobs: list, look at, pause, resume, cancel and remove them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from batchgen.api.auth import TenantService
from batchgen.api.native.replies import job_shown, page, reply
from batchgen.api.native.schemas.jobs import Job, JobList
from batchgen.core.states import JobState

MOST_JOBS = 500  # of one page

router = APIRouter(prefix="/jobs", tags=["jobs"])


class JobQuery(BaseModel):
    """The jobs that a list holds."""

    model_config = ConfigDict(extra="forbid")

    state: JobState | None = None
    # exactly this name
    name: str | None = None
    limit: int = Field(100, ge=1, le=MOST_JOBS)
    # the id of the last job of the page before
    after: str | None = Field(None, pattern="^[0-9a-f]{32}$")


@router.get("", response_model=JobList)
def list_jobs(service: TenantService, query: Annotated[JobQuery, Query()]) -> Response:
    """Return jobs, newest first. The next page is asked for with `after`, the id of the last job.

    `has_more` says whether there is one.
    """
    views = service.jobs(
        state=query.state, name=query.name, limit=query.limit + 1, after=query.after
    )
    return reply(page([job_shown(view) for view in views], query.limit))


@router.get("/{ref}", response_model=Job)
def retrieve_job(service: TenantService, ref: str) -> Response:
    """Return the job that `ref` names: an id, its unique beginning or end, or a name.

    A name means the newest job with it.
    """
    return reply(job_shown(service.status(ref)))


@router.post("/{ref}/pause", response_model=Job)
def pause_job(service: TenantService, ref: str) -> Response:
    """Pause a job; its finished rows are kept. 409 if it is neither queued nor running."""
    return reply(job_shown(service.pause(ref)))


@router.post("/{ref}/resume", response_model=Job)
def resume_job(service: TenantService, ref: str) -> Response:
    """Resume a paused job. 409 if it is neither queued nor running."""
    return reply(job_shown(service.resume(ref)))


@router.post("/{ref}/cancel", response_model=Job)
def cancel_job(service: TenantService, ref: str) -> Response:
    """Stop a job for good; rows without an answer become error rows. Twice is no error.

    409 if there is nothing to stop any more.
    """
    return reply(job_shown(service.cancel(ref)))


@router.delete("/{ref}", status_code=204)
def delete_job(service: TenantService, ref: str) -> None:
    """Delete a job that has ended, and its files. Twice is no error. 409 while it may go on."""
    service.remove(ref)

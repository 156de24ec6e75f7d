"""Changes of jobs as server-sent events: the job each time that it differs from before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from batchgen.api.auth import TenantService
from batchgen.api.native.replies import job_shown
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service.service import Service

INTERVAL = 1.0  # seconds between two looks
MOST_JOBS = 100  # that one stream follows, the newest
PASSING = ("estimate", "fraction")  # fields that change with the clock alone

router = APIRouter(tags=["events"])


def named_job(service: TenantService, ref: str) -> JobRecord:
    """Return the job of the path, before the stream begins: afterwards no status can be sent."""
    return service.job(ref)


@router.get("/jobs/{ref}/events", response_class=EventSourceResponse)
async def watch_job(
    request: Request, service: TenantService, job: Annotated[JobRecord, Depends(named_job)]
) -> AsyncIterator[ServerSentEvent]:
    """Send the event `job` now and after each change; the stream ends with the job.

    `data` is the job, as `GET /api/v1/jobs/{ref}` returns it.
    """
    seen: dict[str, Any] = {}
    while not _is_ending(request):
        view = await run_in_threadpool(service.status, job.public_id)
        for event in _changes(seen, [job_shown(view)]):
            yield event
        if view.has_ended:
            return
        await asyncio.sleep(INTERVAL)


@router.get("/events", response_class=EventSourceResponse)
async def watch_jobs(request: Request, service: TenantService) -> AsyncIterator[ServerSentEvent]:
    """Send the event `job` for each of the newest jobs that has not ended, and at each change.

    The stream goes on until the caller closes it, or the server ends.
    """
    seen: dict[str, Any] = {}
    while not _is_ending(request):
        for event in _changes(seen, await run_in_threadpool(_watched, service, seen)):
            yield event
        await asyncio.sleep(INTERVAL)


def _is_ending(request: Request) -> bool:
    """Return whether the server was told to end; it waits for every answer that goes on."""
    return getattr(request.app.state, "ending", False)


def _watched(service: Service, seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the newest jobs that go on, and those that have ended since they were seen."""
    records = service.records(limit=MOST_JOBS)
    followed = {public_id for public_id, shown in seen.items() if not shown["ended_at"]}
    wanted = [job for job in records if not job.state.ended or job.public_id in followed]
    return [job_shown(view) for view in service.views(wanted)]


def _changes(seen: dict[str, Any], jobs: list[dict[str, Any]]) -> list[ServerSentEvent]:
    """Return an event for each job that differs from what was `seen`, and note it there."""
    events = []
    for job in jobs:
        steady = {name: value for name, value in job.items() if name not in PASSING}
        if seen.get(job["id"]) != steady:
            seen[job["id"]] = steady
            events.append(ServerSentEvent(event="job", data=job))
    return events

"""The router of /api/v1. Each module of this folder adds one resource to it."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from batchgen.api.auth import authenticated
from batchgen.api.error_schemas import NATIVE_ERRORS
from batchgen.api.native import catalogue, events, jobs, results, rows, submission, webhooks

router = APIRouter(
    prefix="/api/v1", dependencies=[Depends(authenticated)], responses={**NATIVE_ERRORS}
)
for resource in (submission, jobs, rows, results, events, catalogue, webhooks):
    router.include_router(resource.router)

"""The router of /v1. Each module of this folder adds one resource to it."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from batchgen.api.auth import authenticated
from batchgen.api.error_schemas import OPENAI_ERRORS
from batchgen.api.openai import batches, files, models

router = APIRouter(prefix="/v1", dependencies=[Depends(authenticated)], responses={**OPENAI_ERRORS})
for resource in (files, batches, models):
    router.include_router(resource.router)

"""/healthz: this process answers. /readyz: it can also do its work."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from batchgen.api.auth import authenticated
from batchgen.api.error_schemas import NATIVE_ERRORS
from batchgen.service import Service
from batchgen.service.readiness import failing_checks
from batchgen_workers.logs import get_logger

log = get_logger(__name__)

#: The only router without a key.
open_router = APIRouter(tags=["health"])
router = APIRouter(
    tags=["health"], dependencies=[Depends(authenticated)], responses={**NATIVE_ERRORS}
)


class Health(BaseModel):
    """The state of the process."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of what the service needs."""

    status: Literal["ready", "unavailable"]
    # {database, storage, broker: True if it is well}
    checks: dict[str, bool]


@open_router.get("/healthz")
async def healthz() -> Health:
    """Answer, which shows that the process runs; nothing else is looked at."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(request: Request, response: Response) -> Readiness:
    """Check database, schema, storage and broker; 503 if one of them fails. The log says why."""
    service: Service = request.app.state.service
    found = failing_checks(service)
    for name, error in found.items():
        if error is not None:
            log.warning("not ready", check=name, error=error.message)
    is_ready = not any(found.values())
    response.status_code = 200 if is_ready else 503
    return Readiness(
        status="ready" if is_ready else "unavailable",
        checks={name: error is None for name, error in found.items()},
    )

"""/metrics: what Prometheus reads of this server. Its numbers are those of all tenants together."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from batchgen.api.auth import authenticated
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.registries import exposition


def metrics_router(*, public: bool) -> APIRouter:
    """Return the route; unless it is public it needs a key with the scope `read`."""
    router = APIRouter(dependencies=[] if public else [Depends(authenticated)])
    router.add_api_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    return router


def metrics(request: Request) -> Response:
    """Return the metrics in the form that the caller accepts."""
    body, content_type = exposition(Process.SERVER, accept=request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})

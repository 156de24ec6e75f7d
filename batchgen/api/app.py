"""The ASGI app over one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig

from batchgen import __version__
from batchgen.api import health
from batchgen.api.body_source import body_readers
from batchgen.api.handlers import install_handlers
from batchgen.api.limits import Limits
from batchgen.api.metrics import metrics_router
from batchgen.api.native.router import router as native
from batchgen.api.observed import Observed
from batchgen.api.openai.router import router as openai
from batchgen.api.rejections import Rejections
from batchgen.api.request_ids import RequestIds
from batchgen.api.streaming import stream_limit
from batchgen.service.service import Service

# FastAPI's own would export query strings and messages of exceptions, which may quote prompts, as
# soon as a library or a variable of the environment sets a provider up. `Observed` does it here.
NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(service: Service) -> FastAPI:
    """Return the app. It closes the service when it ends.

    No page of documentation is served: /openapi.json and /docs would need no key.
    """
    app = FastAPI(
        title="batchgen",
        version=__version__,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=_operation_id,
        lifespan=_lifespan,
    )
    app.state.service = service
    app.state.body_readers = body_readers()
    app.state.streams = stream_limit()
    app.state.rejections = Rejections()
    app.include_router(health.open_router)
    app.include_router(health.router)
    app.include_router(metrics_router(public=service.settings.metrics.public))
    app.include_router(openai)
    app.include_router(native)
    install_handlers(app)
    app.add_middleware(Limits)
    app.add_middleware(Observed)
    app.add_middleware(RequestIds)  # the outermost: it answers what the others raise
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await run_in_threadpool(app.state.service.close)


def _operation_id(route: APIRoute) -> str:
    return route.name

"""The handlers of an app's errors: what a route raises becomes an answer, or none."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from batchgen.api.errors import respond
from batchgen.api.no_answer import NoAnswer, is_undecided
from batchgen.errors import BatchgenError
from batchgen_workers.logs import get_logger

log = get_logger(__name__)


def install_handlers(app: FastAPI) -> None:
    """Let the app answer every expected error in its shape."""
    for kind in (BatchgenError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    if is_undecided(request, error):
        log.warning("outcome unknown, no answer sent", path=request.scope["path"])
        return NoAnswer()
    return respond(error, request.scope["path"], request.state.request_id)

"""Counts, times, logs and traces every request, under the template of its route."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchgen.telemetry.counters import http_duration, http_in_progress, http_requests
from batchgen.telemetry.tracing import active_writer
from batchgen_workers.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# A caller may invent any method and any path: neither may become a time series of its own.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED: Final = "unmatched"
GONE: Final = 499  # the caller left before there was an answer

log = get_logger(__name__)


@dataclass(slots=True)
class _Answer:
    status: int = GONE


class Observed:
    """Wraps an app so that operators see what it answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer()

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
            await send(message)

        with _watched(scope, answer), _traced(scope, answer):
            await self.app(scope, receive, noting_send)


@contextmanager
def _watched(scope: Scope, answer: _Answer) -> Iterator[None]:
    method = _method_of(scope)
    began = time.perf_counter()
    http_in_progress.inc()
    try:
        yield
    except Exception:
        answer.status = 500
        raise
    finally:
        seconds = time.perf_counter() - began
        route = _route_of(scope)
        http_in_progress.dec()
        http_requests.labels(method, route, str(answer.status)).inc()
        http_duration.labels(method, route).observe(seconds)
        log.info(
            "request answered",
            method=method,
            route=route,
            status=answer.status,
            seconds=round(seconds, 4),
        )


@contextmanager
def _traced(scope: Scope, answer: _Answer) -> Iterator[None]:
    writer = active_writer()
    if writer is None:
        yield
        return
    with writer.request(_method_of(scope), Headers(scope=scope)) as span:
        try:
            yield
        finally:
            _describe(span, scope, answer)


def _describe(span: Span, scope: Scope, answer: _Answer) -> None:
    route = _route_of(scope)
    span.update_name(f"{_method_of(scope)} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", answer.status)
    span.set_attribute("batchgen.request", scope["state"]["request_id"])


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "OTHER"


def _route_of(scope: Scope) -> str:
    """Return the template of the matched route, which names no id."""
    # FastAPI's route lacks the prefixes of the routers that include it; this has them
    included = scope.get("fastapi", {}).get("effective_route_context")
    return getattr(included or scope.get("route"), "path", UNMATCHED)

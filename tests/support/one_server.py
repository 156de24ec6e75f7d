"""ASGI apps for tests of the command on a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchgen.service import Service
from batchgen_workers.service.ending import end_stopped
from tests.support.api import serving


class OneServer:
    """Serves the app that it has at the moment, so that many tests share one socket."""

    app: ASGIApp
    url: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def one_server() -> Iterator[OneServer]:
    """A server on a port of the loopback, which serves the app of the test that runs."""
    server = OneServer()
    with serving(server) as server.url:
        yield server


class WithCoordinator:
    """Ends a job that was cancelled before its caller is answered, as a coordinator would soon."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/cancel"):
            await self.app(scope, receive, send)
            return
        answer: list[Message] = []

        async def keep(message: Any) -> None:
            answer.append(message)

        await self.app(scope, receive, keep)
        await to_thread.run_sync(self._end)
        for message in answer:
            await send(message)

    def _end(self) -> None:
        stopped = [job.id for job in self.service.records(state="stopping")]
        stopped += [job.id for job in self.service.records(state="finalizing")]
        end_stopped(self.service.settings, self.service.store, self.service.storage, stopped)

"""The HTTP server: uvicorn over the app, until a signal to end comes."""

from __future__ import annotations

import socket
import ssl
from contextlib import AbstractContextManager, nullcontext

import uvicorn
from fastapi import FastAPI

from batchgen.api.app import create_app
from batchgen.api.connections import MAX_HEAD_BYTES, BoundedProtocol
from batchgen.errors import InvalidParameter
from batchgen.service import Service
from batchgen.service.address import BACKLOG, listen, url_of
from batchgen.service.exposure import check_server
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen_workers.logs import get_logger
from batchgen_workers.observing import observed, process_name
from batchgen_workers.signals import on_ending

IDLE_SECONDS = 5  # until a connection without a request is closed

log = get_logger(__name__)


def run_server(settings: Settings, *, listener: socket.socket | None = None) -> None:
    """Serve until a signal to end comes; requests under way have `drain_grace` seconds to end.

    `listener` is a socket that listens already; without one the address of the settings is taken.
    An unavailable database is no reason to end: requests are answered with 503 until it is back.
    Must be called in the main thread. Raises InvalidParameter if the address is in use, is not
    allowed without TLS, or the files of TLS cannot be used.
    """
    check_server(settings)
    with listener or listen(settings.server) as listening:
        server = make_server(create_app(Service(settings)), settings)
        seen = observed(settings, Process.SERVER, id=process_name())
        with on_ending(server.end), seen:
            log.info("serving", url=url_of(settings.server, listening))
            server.run(sockets=[listening])


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its process."""

    def end(self) -> None:
        """Let it end; a second call does not wait for requests that are under way."""
        self.config.app.state.ending = True  # type: ignore[union-attr]
        self.force_exit = self.should_exit
        self.should_exit = True

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Handle no signal."""
        return nullcontext()


def make_server(app: FastAPI, settings: Settings) -> Server:
    """Return a server of the app with the bounds of these settings.

    It ignores X-Forwarded-For, because any client can forge that header. Raises InvalidParameter if
    the files of TLS cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=settings.server.max_connections,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_grace)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_certfile=settings.server.tls_cert or None,
        ssl_keyfile=settings.server.tls_key or None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        message = f"The files of TLS cannot be used: {error}."
        raise InvalidParameter(message, param="server.tls_cert") from None
    return Server(config)

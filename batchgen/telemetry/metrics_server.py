"""Serves the metrics of a coordinator or a worker to Prometheus, on a port of their own."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.registries import REGISTRIES

PORTS_TRIED: Final = 16  # several workers of one machine take ports that follow each other


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a client may be silent

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_port = False  # two workers must not take turns on one port


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def metrics_server(process: Process, *, host: str, port: int) -> Iterator[int]:
    """Serve the metrics of this process for the block, and yield the port.

    It is the first free one of PORTS_TRIED, `port` being the first. Raises OSError if all are
    taken, or if the address cannot be used.
    """
    server = _bind(host, port)
    server.set_app(make_wsgi_app(REGISTRIES[process]))
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bind(host: str, port: int) -> _Server:
    kind = _Server6 if ":" in host else _Server
    for candidate in range(port, port + PORTS_TRIED):
        try:
            return kind((host, candidate), _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == port + PORTS_TRIED - 1:
                raise
    raise AssertionError("unreachable")

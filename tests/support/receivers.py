"""A receiver of webhooks on the loopback: it answers as a test says, and notes what it was sent.

with receiving() as receiver:
    receiver.answers += [500, 204]      # to the next requests; 204 from then on
    …
    receiver.events()                   # verified with its secret, in order of arrival
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

#: Certificate and key for the name `hooks.test`, valid for a hundred years.
CERTIFICATE = Path(__file__).with_name("hooks_test.pem")
NAME = "hooks.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the receiver got it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """The requests that a receiver got, and its answers."""

    port: int
    scheme: str = "http"
    #: Status codes of the next answers. 0 sends nothing and waits until the receiver closes.
    answers: list[int] = field(default_factory=list)
    #: Headers of every answer.
    headers: dict[str, str] = field(default_factory=dict)
    secret: str = ""
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    #: Cleared by a test to hold every answer back.
    may_answer: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        host = NAME if self.scheme == "https" else "127.0.0.1"
        return f"{self.scheme}://{host}:{self.port}/in?a=b"

    def events(self) -> list[dict[str, Any]]:
        """Return the events received so far; raise if a signature or a time is wrong."""
        receiver = Webhook(self.secret)
        return [receiver.verify(each.body, each.headers) for each in self.requests]

    def ids(self) -> list[str]:
        """Return the id of every request, in order of arrival."""
        return [request.headers["webhook-id"] for request in self.requests]


@contextmanager
def receiving(*, tls: bool = False, port: int = 0) -> Iterator[Receiver]:
    """Receive for the block."""
    with ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler) as server:
        server.daemon_threads = True
        receiver = Receiver(port=server.server_port, scheme="https" if tls else "http")
        receiver.may_answer.set()
        server.RequestHandlerClass = _handler(receiver)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.closing.set()
            receiver.may_answer.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Request(path=self.path, headers=headers, body=body))
            status = receiver.answers.pop(0) if receiver.answers else 204
            receiver.arrived.release()
            receiver.may_answer.wait()
            if status == 0:
                receiver.closing.wait()
                return
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler

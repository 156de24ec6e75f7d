"""A server that nobody may call: it counts who does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class CanaryServer:
    """Listens on the loopback, answers 404 to everybody and notes what they asked for."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        #: The first bytes of each request.
        self.hits: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def environment(self) -> dict[str, str]:
        """Return variables that lead every well-behaved HTTP client here, hub clients too."""
        return {**dict.fromkeys(PROXIES, self.url), "NO_PROXY": "", "HF_ENDPOINT": self.url}

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.hits.append(connection.recv(200))
                connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")


@contextmanager
def canary_server() -> Iterator[CanaryServer]:
    """Yield a server that counts its callers."""
    server = CanaryServer()
    try:
        yield server
    finally:
        server.close()

"""The address of the HTTP server."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from batchgen.errors import InvalidParameter
from batchgen.settings import ServerSettings

BACKLOG = 512  # connections that wait to be accepted


def listen(server: ServerSettings) -> socket.socket:
    """Return a socket that listens on the address; raise InvalidParameter if it cannot be used."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        return socket.create_server((server.host, server.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InvalidParameter(
            f"The server cannot listen on {server.host}, port {server.port}: {error.strerror}. "
            "Choose another port with --port.",
            param="server.port",
        ) from None


def url_of(server: ServerSettings, listener: socket.socket) -> str:
    """Return the URL of a server that listens; on every address, it is that of the machine."""
    host, port, *_ = listener.getsockname()
    if ip_address(host).is_unspecified:
        host = socket.gethostname()
    scheme = "https" if server.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

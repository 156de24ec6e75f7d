from __future__ import annotations

import socket
from typing import Any

import pytest

from batchgen.client.address import checked_address
from batchgen.client.calls import act
from batchgen.client.connection import Connection
from batchgen.errors import ServerUnavailable
from tests.support.receivers import CERTIFICATE, NAME, receiving


def test_only_a_server_that_its_certificate_names_gets_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find, waited = socket.getaddrinfo, list[float]()
    monkeypatch.setattr("batchgen.client.connection.sleep", waited.append)

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        return find("127.0.0.1" if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)

    def send(host: str) -> None:
        url = f"https://{host}:{receiver.port}"
        connection = Connection(checked_address(url, "bg_key", insecure=False))
        try:
            connection.send(act("nightly", "pause"))
        finally:
            connection.close()

    with receiving(tls=True) as receiver:
        for host, trusted in ((NAME, False), ("127.0.0.1", True)):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
            with pytest.raises(ServerUnavailable, match=r"(?i)certificate"):
                send(host)
        assert (receiver.requests, waited) == ([], [])
        send(NAME)
    (request,) = receiver.requests
    assert request.headers["authorization"] == "Bearer bg_key"

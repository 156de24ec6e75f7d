"""The server on a real socket: addresses, TLS, connections that hold on, and its end."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from batchgen.api import connections
from batchgen.api.app import create_app
from batchgen.api.auth import authenticated
from batchgen.api.body_source import read_body
from batchgen.api.connections import MAX_HEAD_BYTES
from batchgen.api.server import make_server, run_server
from batchgen.database.failures import Conflict
from batchgen.errors import DatabaseUnavailable, InvalidParameter
from batchgen.service import Service
from batchgen.service.address import listen, url_of
from batchgen.settings import ServerSettings, Settings
from tests.support.api import Api


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", drain_grace=0.0, server=ServerSettings(port=0))


@contextmanager
def running(settings: Settings, app: FastAPI | None = None) -> Iterator[str]:
    """Run the server itself, bounds included, on a free port; yield its URL."""
    listener = listen(settings.server)
    server = make_server(app or create_app(Service(settings)), settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield url_of(settings.server, listener)
    finally:
        server.end()
        thread.join()


def exchange(url: str, *sent: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for piece in sent:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_server_on_every_address_names_the_machine() -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))  # every address
        expected = f"https://{socket.gethostname()}:{listener.getsockname()[1]}"
        assert url_of(ServerSettings(tls_cert="cert.pem"), listener) == expected


def test_it_answers_and_forges_nothing(settings: Settings) -> None:
    with running(settings) as url:
        answer = httpx2.get(f"{url}/healthz")
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req_")


def test_a_head_that_does_not_end_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.0)
    with running(settings) as url:
        assert exchange(url) == b""
        assert exchange(url, b"GET /healthz HTTP/1.1\r\n") == b""


def test_a_second_head_that_does_not_end_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    with running(settings) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(begun)
            assert b"200 OK" in connection.recv(65536)
            monkeypatch.setattr(connections, "HEAD_SECONDS", 0.0)
            connection.sendall(begun[:9])
            while connection.recv(65536):
                pass


def test_an_answered_client_that_goes_on_sending_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.0)
    head = b"POST /v1/nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999999\r\n\r\n"
    with running(settings) as url:
        assert b"404 Not Found" in exchange(url, head, b"x" * 1000)


def test_a_large_head_is_refused(settings: Settings) -> None:
    many = b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 10_000 + b"\r\n"
    endless = b"GET /v1/" + b"x" * MAX_HEAD_BYTES
    with running(settings) as url:
        for head in (many, endless):
            assert exchange(url, head)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")


def test_more_connections_than_allowed_are_told_so(settings: Settings) -> None:
    settings.server.max_connections = 2
    with running(settings) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))):
            assert httpx2.get(f"{url}/healthz").status_code == 503


def test_tls(settings: Settings, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    settings.server.tls_cert, settings.server.tls_key = str(certificate), str(key)
    trusted = ssl.create_default_context(cafile=str(certificate))
    with running(settings) as url:
        assert url.startswith("https://")
        assert httpx2.get(f"{url}/healthz", verify=trusted).status_code == 200


def test_what_cannot_be_served_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.server.tls_cert = settings.server.tls_key = str(tmp_path / "missing.pem")
    with pytest.raises(InvalidParameter, match="TLS cannot be used"):
        run_server(settings)
    settings.server.tls_cert = settings.server.tls_key = ""
    settings.server.host = "0.0.0.0"  # noqa: S104
    with pytest.raises(InvalidParameter, match="without TLS"):
        run_server(settings)
    settings.server.host = "127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.server.port = taken.getsockname()[1]
        with pytest.raises(InvalidParameter, match="--port"):
            run_server(settings)


def test_an_unknown_outcome_is_not_answered(api: Api, settings: Settings) -> None:
    """If a commit may have worked, an error would be wrong."""
    errors = {"lost": DatabaseUnavailable(), "conflict": Conflict()}
    router = APIRouter(prefix="/v1/test", dependencies=[Depends(authenticated)])

    @router.post("/{error}")
    @router.get("/{error}")
    def fail(error: str) -> None:
        raise errors[error]

    api.app.include_router(router)
    headers = {"authorization": f"Bearer {api.key()}"}
    with (
        running(settings, api.app) as url,
        httpx2.Client(base_url=f"{url}/v1/test", headers=headers) as client,
    ):
        with pytest.raises(httpx2.TransportError):
            client.post("/lost")
        assert client.get("/lost").status_code == 503
        assert client.post("/conflict").status_code == 503


def test_an_upload_under_way_at_the_end_leaves_nothing(api: Api, settings: Settings) -> None:
    reading, ended = threading.Event(), threading.Event()
    router = APIRouter(prefix="/v1/test", dependencies=[Depends(authenticated)])

    @router.post("/body")
    async def body(request: Request) -> None:
        def store(source: BinaryIO) -> None:
            try:
                with api.service.storage.write("inputs/half") as pending:
                    reading.set()
                    while piece := source.read(4096):
                        pending.file.write(piece)
            finally:
                ended.set()

        await read_body(request, store)

    def pieces() -> Iterator[bytes]:
        yield b"x" * 1000
        ended.wait(60)

    api.app.include_router(router)
    headers = {"authorization": f"Bearer {api.key()}"}

    def upload(url: str) -> None:
        with suppress(httpx2.TransportError):
            httpx2.post(f"{url}/v1/test/body", content=pieces(), headers=headers)

    with running(settings, api.app) as url:
        client = threading.Thread(target=upload, args=(url,))
        client.start()
        assert reading.wait(60)
    client.join()
    assert ended.is_set()
    assert list((api.service.settings.home / "inputs").glob("*")) == []

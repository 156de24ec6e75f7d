"""The HTTP app for tests, with keys for two tenants, called without a socket or through one.

def test_a_job_is_seen(api: Api) -> None:
    api.ours.get("/api/v1/jobs")            # a client with the key of one tenant
    api.theirs.get("/api/v1/jobs")          # with the key of another one
    api.anonymous.get("/api/v1/jobs")       # without a key
    api.ours_with("read").get(…)            # a key of the first tenant with these scopes

def test_a_client_runs(api: Api) -> None:
    with serving(api.app) as url: …         # a real socket on the loopback
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from batchgen.api.app import create_app
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.tenants.principal import Scope, parse_scopes
from tests.support.homes import pin_model

HOOKS_HOST = "hooks.example"  # may receive webhooks
OURS, THEIRS = "ours", "theirs"  # tenants


@dataclass
class Api:
    """An app on a home that has the model `tiny`, and clients of it."""

    service: Service
    app: FastAPI
    _open: ExitStack = field(default_factory=ExitStack)

    def key(self, tenant: str = OURS, *scopes: str) -> str:
        """Return a new key of a tenant; without `scopes` it has all."""
        access = self.service.access
        access.tenants.add(tenant)
        return access.keys.create(tenant, scopes=parse_scopes(scopes or Scope)).key

    def client(self, key: str | None = None) -> TestClient:
        """Return a client that sends this key, which lives as long as the test."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        client = TestClient(self.app, headers=headers, raise_server_exceptions=False)
        self._open.callback(client.close)
        return client

    @cached_property
    def ours(self) -> TestClient:
        return self.client(self.key(OURS))

    @cached_property
    def theirs(self) -> TestClient:
        return self.client(self.key(THEIRS))

    @cached_property
    def anonymous(self) -> TestClient:
        return self.client()

    def ours_with(self, *scopes: str) -> TestClient:
        return self.client(self.key(OURS, *scopes))

    def close(self) -> None:
        self._open.close()
        self.service.close()


@pytest.fixture
def api(tmp_path: Path, database_url: str) -> Iterator[Api]:
    """The app on an empty database, on each of the two."""
    with running_api(tmp_path, database_url) as api:
        yield api


@contextmanager
def running_api(folder: Path, database_url: str) -> Iterator[Api]:
    """Yield the app on a new home in a folder."""
    settings = Settings(home=folder / "home", database_url=database_url, webhook_hosts=HOOKS_HOST)
    pin_model(settings.home)
    service = Service(settings)
    api = Api(service, create_app(service))
    yield api
    api.close()


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve the app on a free port of the loopback for the block; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

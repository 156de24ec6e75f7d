"""A whole installation over HTTP: server, coordinator, worker, Valkey and PostgreSQL, each real.

with installation(folder, database_url=…) as service:
    client = service.client()           # OpenAI's own
    service.hold.after(4)               # the fake engine ends four rows and no more
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
from openai.types import Batch

from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.tenants.principal import DEFAULT_SCOPES
from batchgen_workers import testing
from tests.support.cluster import FAST_SETTINGS
from tests.support.holding import Hold
from tests.support.processes import Process, Processes, processes
from tests.support.servers import running_broker, server_folder
from tests.support.workers import wait_until

ENDED = ("completed", "failed", "expired", "cancelled")
SERVING = re.compile(r"http://127\.0\.0\.1:\d+")
COMMAND = "import sys; from batchgen_cli.main import main; sys.argv[1:] = ['server']; main()"


@dataclass
class Installation:
    """The processes, and what looks at them from outside."""

    settings: Settings
    started: Processes
    hold: Hold
    url: str
    service: Service

    def key(self, tenant: str) -> str:
        """Return a new key of a tenant."""
        self.service.access.tenants.add(tenant)
        return self.service.access.keys.create(tenant, scopes=DEFAULT_SCOPES).key

    def options(self, tenant: str = "acme") -> dict[str, Any]:
        """Return what a client of a tenant is made with."""
        return {"base_url": f"{self.url}/v1", "api_key": self.key(tenant), "timeout": 60.0}

    def client(self, tenant: str = "acme", **options: Any) -> openai.OpenAI:
        """Return a client of a tenant."""
        return openai.OpenAI(**{**self.options(tenant), **options})


@contextmanager
def installation(
    folder: Path,
    *,
    database_url: str,
    worker: Callable[[Processes], Process] | None = None,
    **changed: Any,
) -> Iterator[Installation]:
    """Yield an installation whose home, with its models, is `folder/home`.

    Without `worker` it has one with the fake engine. `changed` are further settings.
    """
    held = Hold(folder / "hold")
    with server_folder("bgvk-") as broker_folder, running_broker(broker_folder) as broker:
        values = {**FAST_SETTINGS, "server": {"port": 0}, **changed}
        settings = Settings(
            home=folder / "home", database_url=database_url, broker_url=broker, **values
        )
        os.environ[testing.HOLD] = str(held.path)
        try:
            with processes(settings, folder) as started:
                started.coordinator()
                (worker or _fake)(started)
                url = url_of(serve(started))
                service = Service(settings)
                yield Installation(settings, started, held, url, service)
                service.close()
        finally:
            del os.environ[testing.HOLD]


def await_status(client: openai.OpenAI, batch: Batch, *wanted: str) -> Batch:
    """Poll a batch until it has one of these statuses, and return it."""
    found = batch

    def has_come() -> bool:
        nonlocal found
        found = client.batches.retrieve(batch.id)
        assert found.status in wanted or found.status not in ENDED, found
        return found.status in wanted

    wait_until(has_come)
    return found


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Return the lines of a result file."""
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def _fake(started: Processes) -> Process:
    return started.worker(testing.FAST)


def serve(started: Processes, *, failpoint: str = "") -> Process:
    """Start `batchgen server` on any port."""
    return started.script(COMMAND, failpoint=failpoint)


def url_of(server: Process) -> str:
    """Return the URL of a server, once it answers."""

    def said() -> list[str]:
        return SERVING.findall(server.log.read_text(encoding="utf-8"))

    wait_until(said)
    url = said()[0]
    wait_until(lambda: httpx2.get(f"{url}/healthz").status_code == 200)
    return url

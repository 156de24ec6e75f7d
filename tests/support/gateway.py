"""The HTTP API of a cluster: servers that can be killed, OpenAI's client, and what it computed.

gateway = Gateway(cluster)
server = gateway.server(failpoint="batch.created=kill")
batch = gateway.create(20)                 uploads 20 requests and creates a batch on them
with gateway.observed() as seen: …         every state that a caller can see, checked at the end
gateway.computed()                         Counter {number of the question: times it was answered}
"""

from __future__ import annotations

import itertools
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from openai.types import Batch

from batchgen.service import Service
from batchgen.settings import Settings
from batchgen_workers import testing
from tests.support.batch_observer import BatchObserver
from tests.support.batches import chat_line, jsonl
from tests.support.cluster import Cluster
from tests.support.nursery import Member
from tests.support.workers import wait_until

NUMBER = re.compile(r"Count to (\d+)")


def run_api(arguments: list[str]) -> int:
    """Be a server of the HTTP API on a port of the loopback."""
    from batchgen.api.server import run_server
    from batchgen_workers.service.local_process import run

    listener = socket.create_server(("127.0.0.1", int(arguments[0])))
    return run(lambda: run_server(Settings(), listener=listener))


@dataclass
class Gateway:
    """Servers of one cluster, all with one key."""

    cluster: Cluster
    ports: list[int] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        with closing(Service(self.cluster.settings)) as service:
            self.key = service.access.keys.create("local").key
        self.file = self.cluster.folder / "computed"
        self.file.touch()

    def server(self, *, replica: int = 0, failpoint: str = "") -> Member:
        """Start a server, at the address of an earlier one with this number, and wait for it."""
        if replica == len(self.ports):
            self.ports.append(_free_port())
        member = self.cluster.start(
            "server", run_api, [str(self.ports[replica])], failpoint=failpoint
        )
        wait_until(lambda: _answers(f"{self.url(replica)}/healthz"))
        return member

    def worker(self, factory: str = testing.FAST, **options: Any) -> Member:
        """Start a worker whose engine writes down what it computes."""
        return self.cluster.worker(
            factory, environment={testing.COMPUTED: str(self.file)}, **options
        )

    def url(self, replica: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[replica]}"

    def client(self, replica: int = 0, *, retries: int = 0) -> openai.OpenAI:
        """Return OpenAI's client of a server."""
        return openai.OpenAI(
            base_url=f"{self.url(replica)}/v1", api_key=self.key, max_retries=retries, timeout=60
        )

    def upload(self, rows: int) -> str:
        """Upload questions that no other file has; return the id of the file."""
        lines = jsonl(chat_line(next(self._numbers)) for _ in range(rows))
        with self.client() as client:
            return client.files.create(file=("questions.jsonl", lines), purpose="batch").id

    def create(self, rows: int) -> Batch:
        """Create a batch on a new file."""
        with self.client() as client:
            return create(client, self.upload(rows))

    def status(self, batch_id: str) -> Batch:
        with self.client() as client:
            return client.batches.retrieve(batch_id)

    def rows_completed(self, batch_id: str) -> int:
        counts = self.status(batch_id).request_counts
        assert counts is not None
        return counts.completed

    def cancel(self, batch_id: str) -> Batch:
        with self.client() as client:
            return client.batches.cancel(batch_id)

    def await_status(self, batch_id: str, *wanted: str) -> Batch:
        """Wait until a batch has one of these states."""
        wait_until(lambda: self.status(batch_id).status in wanted)
        return self.status(batch_id)

    def output(self, batch: Batch) -> list[str]:
        """Return the lines of the output file of an ended batch."""
        assert batch.output_file_id is not None
        with self.client() as client:
            return client.files.content(batch.output_file_id).text.splitlines()

    def computed(self) -> Counter[int]:
        """Count, for each question, how often an engine has answered it."""
        return Counter(int(number) for number in NUMBER.findall(self.file.read_text()))

    @contextmanager
    def observed(self) -> Iterator[BatchObserver]:
        """Look at every batch each 100 ms for the block, and judge what was seen after it."""
        observer = BatchObserver(f"{self.url()}/v1/batches?limit=100", self.key)
        with observer.watching():
            yield observer
        observer.judge()


def create(client: openai.OpenAI, file_id: str, **headers: str) -> Batch:
    """Create a batch on a file."""
    return client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False

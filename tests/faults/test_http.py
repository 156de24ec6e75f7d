"""Faults 54 to 56 and 59 through a socket, and deaths of the server while it accepts a job."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.repair.garbage import Collector
from tests.support.cluster import Cluster
from tests.support.gateway import Gateway
from tests.support.homes import MODEL, prompts
from tests.support.nursery import Member

MEBIBYTE = 1 << 20
MOST_MEMORY = 200 * MEBIBYTE  # that an attack may take
CANARY = "a canary that no answer may hold"
KEY = "submitted-once"


@pytest.fixture
def gateway(cluster: Cluster) -> Gateway:
    return Gateway(cluster)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    """A server, and a caller of it that has a key."""
    gateway.server()
    with caller(gateway) as client:
        yield client


def caller(gateway: Gateway) -> httpx2.Client:
    """Return a caller of the server that was started last."""
    return httpx2.Client(
        base_url=f"http://127.0.0.1:{gateway.ports[-1]}",
        headers={"authorization": f"Bearer {gateway.key}"},
        timeout=60.0,
    )


def exchange(gateway: Gateway, *pieces: bytes) -> bytes:
    """Send bytes; return what comes until the server closes, or has answered."""
    with socket.create_connection(("127.0.0.1", gateway.ports[-1]), timeout=60) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # it has answered already
        return connection.recv(65536)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


@pytest.mark.fault(54, "requests without a key that pretend")
def test_54_no_request_line_goes_around_the_key(gateway: Gateway, cluster: Cluster) -> None:
    gateway.server()
    for target in (
        "/api/v1/jobs",
        "http://localhost/healthz/../api/v1/jobs",
        "http://localhost/api/v1/jobs",
        "//api/v1/jobs",
        "/API/V1/jobs",
        "/v1/../api/v1/jobs",
        "/healthz/%2e%2e/api/v1/jobs",
        "/healthz%00/api/v1/jobs",
        "*",
    ):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "TRACE", "BREW"):
            answer = exchange(gateway, head(f"{method} {target}", "connection: close"))
            assert status(answer) in (400, 401, 404, 405, 429), (method, target)
            cluster.toll.injections += 1


@pytest.mark.fault(55, "a megabyte of SQL in key, id, filter and field")
def test_55_long_texts_are_refused_and_no_sql_is_shown(
    gateway: Gateway, cluster: Cluster, client: httpx2.Client
) -> None:
    sql = "' UNION SELECT digest FROM api_keys; --" * (MEBIBYTE // 39)
    answers = [
        exchange(gateway, head("GET /api/v1/jobs", f"authorization: Bearer {sql}")),
        exchange(gateway, head(f"GET /v1/files/{sql.replace(' ', '+')}")),
        exchange(gateway, head(f"GET /api/v1/jobs?name={sql.replace(' ', '+')}")),
    ]
    assert {status(answer) for answer in answers} <= {400, 401, 404, 414, 431}
    new = {"input_file_id": "file-" + "0" * 32, "endpoint": "/v1/chat/completions"}
    for field in ("input_file_id", "endpoint", "completion_window"):
        body = {"completion_window": "24h", **new, field: sql[: MEBIBYTE // 2]}
        answer = client.post("/v1/batches", json=body)
        assert answer.status_code in (400, 404), field
        answers.append(answer.text.replace(sql[: MEBIBYTE // 2], "").encode())
    answers.append(client.post("/v1/batches", json={**new, "metadata": {"a": sql}}).content)
    for text in answers:
        assert not [word for word in (b"SELECT", b"sqlalchemy", b"Traceback") if word in text]
    cluster.toll.injections += len(answers)


@pytest.mark.fault(56, "paths in every id and name of the HTTP API")
def test_56_no_name_becomes_a_path(
    gateway: Gateway, cluster: Cluster, client: httpx2.Client
) -> None:
    canary = cluster.home / "canary"
    canary.write_text(CANARY)
    (cluster.home / "inputs").mkdir(exist_ok=True)
    (cluster.home / "inputs" / ("0" * 32)).symlink_to(canary)
    before = sorted(path for path in cluster.home.rglob("*") if path.is_dir())
    names = ["../canary", "%2e%2e/canary", "..%2fcanary", str(canary), f"//{canary}"]
    for name in [*names, "file-" + "0" * 32, "file-../canary", "canary%00", "....//canary"]:
        for path in (f"/v1/files/{name}/content", f"/api/v1/jobs/{name}/files/{name}"):
            answer = client.get(path)
            assert answer.status_code in (400, 404), path
            assert CANARY not in answer.text
            cluster.toll.injections += 1
    for name in ("../../canary", str(canary), "..\\canary", "a/b"):
        form = {"file": (name, prompts(2))}
        stored = client.post("/v1/files", data={"purpose": "batch"}, files=form)
        assert stored.status_code in (200, 400), stored.text
        cluster.toll.injections += 1
    assert canary.read_text() == CANARY
    made = {path.name for path in cluster.home.rglob("*") if path.is_dir()}
    assert made == {path.name for path in before}


@pytest.mark.fault(59, "bodies that are slow, endless, wrong or too long")
def test_59_bodies_without_bounds_take_no_memory(
    gateway: Gateway, cluster: Cluster, client: httpx2.Client
) -> None:
    server = cluster.members[-1]
    assert client.get("/readyz").status_code == 200
    idle = memory(server)
    key = f"authorization: Bearer {gateway.key}"
    upload = head("POST /v1/files", key, "content-type: multipart/form-data; boundary=a")
    too_long = upload.replace(b"\r\n\r\n", f"\r\ncontent-length: {(2 << 30) + 1}\r\n\r\n".encode())
    assert status(exchange(gateway, too_long)) == 413
    endless = head("POST /v1/batches", key, "transfer-encoding: chunked")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert status(exchange(gateway, endless, *[chunk] * 4096)) == 413  # 256 MiB
    many = [f"x-{number}: y" for number in range(10_000)]
    assert status(exchange(gateway, head("GET /readyz", key, *many))) in (400, 431)
    wrong = head("POST /v1/batches", key, "content-length: 5", "content-length: 6")
    assert status(exchange(gateway, wrong, b"{}")) == 400
    negative = head("POST /v1/batches", key, "content-length: -1")
    assert status(exchange(gateway, negative)) == 400
    slow = [
        socket.create_connection(("127.0.0.1", gateway.ports[-1]), timeout=60) for _ in range(200)
    ]
    for number, connection in enumerate(slow):
        connection.sendall(upload[:-2] if number % 2 else upload[:9])
    assert client.get("/api/v1/jobs").status_code == 200  # others are served meanwhile
    for connection in slow:
        connection.close()
    cluster.toll.injections += 5 + len(slow)
    assert memory(server) - idle < MOST_MEMORY
    assert server.is_alive


def memory(server: Member) -> int:
    """Return the most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


@pytest.mark.fault(85, "the server dies while it accepts a job")
@pytest.mark.parametrize(
    "failpoint",
    [
        "storage.opening=kill",
        "storage.written=kill@1",
        "storage.synced=kill@1",
        "storage.renamed=kill@1",
        "storage.renamed=kill@2",
        "submit.stored=kill",
        "submit.committed=kill",
    ],
)
def test_85_a_job_is_accepted_once_or_not_at_all(
    gateway: Gateway, cluster: Cluster, failpoint: str
) -> None:
    server = gateway.server(failpoint=failpoint)
    with pytest.raises(httpx2.TransportError):
        submit(gateway)
    assert server.wait() != 0
    cluster.hurt()
    kept = cluster.store.jobs.list()
    assert len(kept) == (failpoint == "submit.committed=kill")
    gateway.server()
    cluster.coordinator()
    gateway.worker()
    job = submit(gateway)
    assert [found.public_id for found in cluster.store.jobs.list()] == [job.public_id]
    assert [found.public_id for found in kept] in ([], [job.public_id])
    cluster.drain(job)
    for _ in Collector(cluster.store, cluster.storage, min_age=-10.0).collect():
        pass
    inputs = {path.name for path in (cluster.home / "inputs").iterdir()}
    assert inputs == {job.input_sha256, f"{job.input_sha256}.index"}
    cluster.check()


def submit(gateway: Gateway) -> JobRecord:
    """Submit a job with a key of idempotency, and return it."""
    with caller(gateway) as client:
        answer = client.post(
            "/api/v1/jobs",
            params={"model": MODEL, "params": '{"temperature": 0}'},
            content=prompts(20),
            headers={"idempotency-key": KEY},
        )
    assert answer.status_code in (200, 201), answer.text
    return gateway.cluster.store.jobs.get(answer.json()["id"])

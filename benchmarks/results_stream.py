"""Rows a second and memory of a results stream, and what it does to those who poll the status.

    python benchmarks/results_stream.py [--rows 1000000] [--rounds 5] [--clients 100]
                                        [--seconds 10] [--windows 5] [--json] [--save FILE]

A job of so many rows is made, its answers of about 350 characters, one row in a hundred failed.
First its lines are read in this process, each form `rounds` times. Then a server of its own process
streams them over and over, while each client asks for the status of a job once a second. Beside
other work the calmest round and window tell the most; the processor time is given as well.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from batchgen.core.endpoints import CHAT
from batchgen.dataset.dataset import DatasetMeta, write_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen.settings import Settings
from batchgen.tenants.principal import parse_scopes
from benchmarks.options import publish
from tests.support.homes import pin_model, prompts
from tests.support.result_rows import error_row, ok_row

ROWS = 1_000_000
ROUNDS = 5
CLIENTS = 100
SECONDS = 10.0
WINDOWS = 5
TOGETHER = 1000  # rows made at a time
MEBI = 1 << 20
ANSWER = (
    'The answer is "{0}".\nIt follows from the rule: first, add; then — carefully — multiply.\t'
    "What is left over belongs to nobody, as the letter of 1911 says. "
) * 2
#: Serves the home that it is told, and says where.
SERVER = """
import sys
from batchgen.api.server import run_server
from batchgen.service.address import listen, url_of
from batchgen.settings import Settings
settings = Settings(home=sys.argv[1], server={"port": 0})
listener = listen(settings.server)
print(url_of(settings.server, listener), flush=True)
run_server(settings, listener=listener)
"""


def make_job(service: Service, n_rows: int) -> JobRecord:
    """Return an ended job of so many rows, whose dataset is written without an engine."""
    job = service.submit(io.BytesIO(prompts(1)), Submission(model="tiny", name="large"))
    service.store.jobs.cancel(job.id)
    service.store.finalization.finalizable()
    final = service.store.finalization.claim(job.id, owner="benchmark", ttl=3600.0)
    assert final is not None
    meta = DatasetMeta(
        job_id=job.public_id,
        name=job.name,
        model=job.model,
        model_sha256=job.model_sha256,
        engine_version="benchmark",
        params={},
        input_sha256=job.input_sha256,
        n_rows=n_rows,
        created_at=job.created_at,
    )
    segments = (
        [_row(row) for row in range(start, min(start + TOGETHER, n_rows))]
        for start in range(0, n_rows, TOGETHER)
    )
    root = f"datasets/{job.public_id}/e{final.epoch}"
    info = write_dataset(service.storage, root=root, segments=segments, meta=meta)
    return service.store.finalization.complete(
        final, dataset_path=info.path, manifest_sha256=info.manifest_sha256
    )


def _row(row: int) -> Any:
    if row % 100 == 50:
        return error_row(row)
    extra = f'{{"topic":"numbers","answer":{row}}}' if row % 2 else None
    return ok_row(row, ANSWER.format(row), extra=extra, request_id=f"req_{row:032x}")


def read_all(pieces: Callable[[], Iterator[bytes]], rounds: int, n_rows: int) -> dict[str, Any]:
    """Read a stream some times; return the figures of the fastest time."""
    found = []
    for _ in range(rounds):
        before = most = resident()
        size, began, busy = 0, time.perf_counter(), time.process_time()
        for piece in pieces():
            size += len(piece)
            most = max(most, resident())
        taken, busy = time.perf_counter() - began, time.process_time() - busy
        found.append(
            {
                "rows_per_second": round(n_rows / taken),
                "rows_per_cpu_second": round(n_rows / busy),
                "megabytes_per_second": round(size / taken / 1e6, 1),
                "memory_mib": round((most - before) / MEBI, 1),
            }
        )
    best = max(found, key=lambda figures: figures["rows_per_second"])
    return {**best, "memory_mib": max(figures["memory_mib"] for figures in found)}


def resident(pid: int | str = "self") -> int:
    """Return the bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, int]]:
    """Run a server on a home; yield its URL and the id of its process."""
    command = [sys.executable, "-c", SERVER, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server.pid
        finally:
            server.terminate()


async def load(url: str, key: str, pid: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Poll the status of a job, with and without a stream beside it; return each window."""
    found = []
    for window in range(2 * args.windows):
        streamed = window % 2 == 1
        async with httpx2.AsyncClient(
            base_url=f"{url}/api/v1",
            headers={"authorization": f"Bearer {key}"},
            timeout=60.0,
            # below the server's, which would close a connection while it is being used again
            limits=httpx2.Limits(max_connections=args.clients + 1, keepalive_expiry=3.0),
        ) as client:
            figures = await _window(client, args, streamed=streamed)
        memory = round(resident(pid) / MEBI, 1)
        found.append({"streamed": streamed, "mib": memory, **figures})
    return found


async def _window(
    client: httpx2.AsyncClient, args: argparse.Namespace, *, streamed: bool
) -> dict[str, Any]:
    streaming = asyncio.create_task(_stream(client)) if streamed else None
    polled = [_poll(client, at / args.clients, args.seconds) for at in range(args.clients)]
    taken = np.array([each for all_ in await asyncio.gather(*polled) for each in all_])
    if streaming is not None:
        streaming.cancel()
        await asyncio.wait([streaming])
    return _percentiles(taken * 1e3)


async def _stream(client: httpx2.AsyncClient) -> None:
    while True:
        async with client.stream("GET", "/jobs/large/results") as answer:
            async for _ in answer.aiter_raw():
                pass


async def _poll(client: httpx2.AsyncClient, start: float, seconds: float) -> list[float]:
    await asyncio.sleep(start)
    taken = []
    for _ in range(round(seconds)):
        began = time.perf_counter()
        answer = await client.get("/jobs/large")
        assert answer.status_code == 200
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, 1.0 - taken[-1]))
    return taken


def _percentiles(taken: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, Any]:
    shares = {"median_ms": 50, "p99_ms": 99, "worst_ms": 100}
    figures = {name: round(float(np.percentile(taken, share)), 1) for name, share in shares.items()}
    return {"polls": len(taken), **figures}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Make the job and return all figures."""
    with tempfile.TemporaryDirectory(prefix="batchgen-results-") as folder:
        home = Path(folder) / "home"
        pin_model(home)
        service = Service(Settings(home=home))
        job = make_job(service, args.rows)
        results = service.results
        forms: dict[str, Callable[[], Iterator[bytes]]] = {
            "jsonl": lambda: results.lines(job.public_id),
            "openai": lambda: results.openai_lines(job.public_id, errors=False, endpoint=CHAT),
            "arrow": lambda: results.arrow(job.public_id),
            "parquet": lambda: results.parquet(job.public_id),
        }
        figures = {name: read_all(form, args.rounds, args.rows) for name, form in forms.items()}
        key = service.access.keys.create("local", scopes=parse_scopes(["read"])).key
        with serving(home) as (url, pid):
            windows = asyncio.run(load(url, key, pid, args))
        service.close()
    return {"rows": args.rows, "streams": figures, "windows": windows}


def report(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    lines = [f"{result['rows']:,} rows"]
    for name, each in result["streams"].items():
        lines.append(
            f"{name:8} {each['rows_per_second']:>9,} rows/s, {each['rows_per_cpu_second']:>9,} a "
            f"CPU second, {each['megabytes_per_second']} MB/s, {each['memory_mib']} MiB more"
        )
    for streamed in (False, True):
        windows = [one for one in result["windows"] if one["streamed"] is streamed]
        calmest = min(windows, key=lambda one: one["p99_ms"])
        beside = "beside a stream" if streamed else "alone"
        lines.append(
            f"status {beside}: median {calmest['median_ms']} ms, p99 {calmest['p99_ms']} ms, worst "
            f"{calmest['worst_ms']} ms of {calmest['polls']} polls in the calmest window"
        )
    memory = ", ".join(str(one["mib"]) for one in result["windows"])
    return "\n".join(
        [*lines, f"MiB of the server after each window, every other one with a stream: {memory}"]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one window")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="with a stream, and without")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    result = measure(args)
    publish(args, "results_stream", result, report(result))


if __name__ == "__main__":
    main()

"""Milliseconds of what workers, coordinators and users ask of a database of 10,000 shards.

    python benchmarks/queries.py [--shards 10000] [--database sqlite|postgresql] [--rounds 50]
                                 [--database-url URL] [--json] [--save FILE]
    python benchmarks/queries.py --jobs 100000 [--unended 1000] …

One job has all the shards, half of them committed; twenty small jobs wait beside it. Everything
goes through the store, a transaction each; the figures are the median and the 95th percentile of
the rounds. Claims, progress and status are to stay below 5 ms, whatever the size of the job.

With --jobs, so many jobs are in the database instead (see many_jobs.py), and to find, to list and
to create one is to stay below 10 ms in the 95th percentile.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from batchgen.dataset.parts import PartInfo
from batchgen.jobs.creation.sharding import MAX_SHARD_ROWS
from batchgen.jobs.records.job_records import JobRecord, Lease, NewJob
from batchgen.jobs.store import Store
from batchgen.service import Service
from batchgen.settings import Settings
from benchmarks.installation import DATABASES, migrated_database
from benchmarks.many_jobs import fill_jobs, looks
from benchmarks.options import publish

SHARDS = 10_000
ROUNDS = 50
SMALL_JOBS = 20
MODEL = "benchmark"
BAR = 5.0  # milliseconds
JOB_BAR = 10.0  # milliseconds, of the 95th percentile
BOUNDED = ("claim", "progress", "status", "status of a small job")
TTL = 600.0  # seconds

#: Half of the shards of the first job, committed as if by workers.
COMMIT_HALF = (
    "UPDATE shards SET state = 'committed', epoch = 1, attempts = 1, rows_done = n_rows "
    "WHERE job_id = {job} AND id % 2 = 0",
    "INSERT INTO parts (shard_id, job_id, epoch, path, n_rows, n_ok, n_err, bytes, sha256, "
    "prompt_tokens, completion_tokens, committed_at) SELECT id, job_id, 1, 'parts/' || id, n_rows, "
    "n_rows, 0, 1000, 'sum', 7 * n_rows, 3 * n_rows, 1.0 FROM shards "
    "WHERE job_id = {job} AND state = 'committed'",
)


class Clock:
    """Times calls by name."""

    def __init__(self) -> None:
        # {name: [(seconds, of them computing in this thread)]}
        self._taken: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, note how long it took, and return what it returned."""
        began, busy = time.perf_counter(), time.thread_time()
        result = call()
        taken = time.perf_counter() - began, time.thread_time() - busy
        self._taken[name].append(taken)
        return result

    def figures(self) -> dict[str, dict[str, float]]:
        """Return median, 95th percentile and median CPU time, SQLite's work included, of each."""
        return {name: _figures(np.array(taken) * 1e3) for name, taken in self._taken.items()}


def _figures(taken: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> dict[str, float]:
    milliseconds, busy = taken.T
    return {
        "median_ms": round(float(np.median(milliseconds)), 2),
        "p95_ms": round(float(np.percentile(milliseconds, 95)), 2),
        "cpu_ms": round(float(np.median(busy)), 2),
    }


def fill(store: Store, shards: int) -> JobRecord:
    """Make the jobs; return the one with so many shards."""
    large = _submit(store, shards * MAX_SHARD_ROWS)
    for _ in range(SMALL_JOBS):
        _submit(store, 10)
    store.dispatch.start_due()
    with store.database.begin() as connection:
        for statement in COMMIT_HALF:
            connection.execute(text(statement.format(job=large.id)))
        _check(connection, large, shards)
    return store.jobs.by_id(large.id)


def rounds(service: Service, large: JobRecord, count: int) -> Clock:
    """Do each thing so many times."""
    clock, store = Clock(), service.store
    small = store.jobs.by_id(large.id + 1)
    for _ in range(count):
        published = clock.time(
            "take", lambda: store.dispatch.take(MODEL, limit=16, redispatch_after=30.0)
        )
        clock.time("models_with_work", store.dispatch.models_with_work)
        lease = clock.time("claim", partial(store.leases.claim, published[0], owner="w", ttl=TTL))
        _finish(store, clock, lease)
        clock.time("progress", lambda: store.jobs.progress(large.id))
        clock.time("status", lambda: service.status(large.public_id))
        clock.time("status of a small job", lambda: service.status(small.public_id))
        clock.time("finalizable", store.finalization.finalizable)
        clock.time("reap", store.leases.reap)
        clock.time("statistics", lambda: store.statistics.read(alive_within=30.0))
        store.dispatch.unmark(published)
    return clock


def _finish(store: Store, clock: Clock, lease: Lease) -> None:
    clock.time("renew", lambda: store.leases.renew(lease, rows_done=1, ttl=TTL))
    part = PartInfo(
        path=f"parts/{lease.shard_id}",
        n_rows=lease.n_rows,
        n_ok=lease.n_rows,
        n_err=0,
        bytes=1000,
        sha256="sum",
        prompt_tokens=1,
        completion_tokens=1,
    )
    clock.time("commit", lambda: store.leases.commit(lease, part))


def _submit(store: Store, n_rows: int) -> JobRecord:
    return store.jobs.submit(
        NewJob(
            input_sha256=f"{n_rows:064x}",
            input_bytes=100 * n_rows,
            n_rows=n_rows,
            model=MODEL,
            model_sha256="0" * 64,
        )
    )


def _check(connection: Connection, job: JobRecord, shards: int) -> None:
    query = "SELECT count(*) FROM shards WHERE job_id = :job"
    found = connection.execute(text(query), {"job": job.id}).scalar_one()
    assert found == shards, f"{found} shards"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Fill a database and return the figures."""
    with (
        migrated_database(args.database, url=args.database_url) as url,
        closing(Service(Settings(home=Path(url), database_url=url))) as service,
    ):
        if args.jobs:
            fill_jobs(service, args.jobs, args.unended)
            size, clock = {"jobs": args.jobs, "unended": args.unended}, Clock()
            calls = looks(service)
            for name in [*calls] * args.rounds:
                clock.time(name, calls[name])
        else:
            large = fill(service.store, args.shards)
            size, clock = {"shards": args.shards}, rounds(service, large, args.rounds)
    return {**size, "database": args.database, "rounds": args.rounds, "calls": clock.figures()}


def is_quick(result: dict[str, Any]) -> bool:
    """Return whether what is bounded stays below its bar."""
    if "jobs" in result:
        return all(figures["p95_ms"] < JOB_BAR for figures in result["calls"].values())
    return all(result["calls"][name]["median_ms"] < BAR for name in BOUNDED)


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    size = "{jobs:,} jobs, {unended:,} not ended," if "jobs" in result else "{shards:,} shards"
    lines = [(size + " on {database}, {rounds} rounds").format_map(result)]
    for name, figures in result["calls"].items():
        lines.append(
            f"{name:>22}: {figures['median_ms']:6.2f} ms, p95 {figures['p95_ms']:6.2f} ms, "
            f"CPU here {figures['cpu_ms']:5.2f} ms"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--jobs", type=int, default=0, help="measure with so many jobs instead")
    parser.add_argument("--unended", type=int, default=1000, help="jobs that wait or run")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--database-url", default="", help="an empty database of that kind")
    parser.add_argument("--save", type=Path, help="JSON file that the figures are appended to")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    result = measure(args)
    publish(args, "queries", result, describe(result))
    return 0 if is_quick(result) else 1


if __name__ == "__main__":
    sys.exit(main())

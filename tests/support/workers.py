"""Jobs of fake rows, nodes with a fake engine, and waiting for what they do."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from batchgen.core.kv_totals import KVTotals
from batchgen.core.rows import ResultRow
from batchgen.database.tables import shards
from batchgen.dataset.parts import read_results
from batchgen.inputs.ingest import ingest
from batchgen.inputs.survey import OnInvalid
from batchgen.jobs.records.job_records import JobRecord, NewJob
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers import testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.shard.runner import ShardRunner
from batchgen_workers.shard.shard import ResultLimits
from tests.support.homes import pin_model

DEADLINE = 120.0  # seconds a test waits for something that should take well below one
POLL = 0.01  # seconds


def wait_until(happened: Callable[[], Any], *, within: float = DEADLINE) -> None:
    """Return once `happened()` is true; fail after a generous while."""
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {within} s"
        time.sleep(POLL)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def questions(n_rows: int, **fields: Any) -> list[dict[str, Any]]:
    """Return raw prompts, each different; greedy, so that every computation gives one answer."""
    return [
        {"id": f"q{row}", "prompt": f"Count to {row}", "temperature": 0, **fields}
        for row in range(n_rows)
    ]


def answer_of(row: int, *, tokens: int = testing.DEFAULT_TOKENS) -> str:
    """Return what the fake engine answers to a row of `questions`."""
    return testing.answer_to(f"Count to {row}", seed=None, tokens=tokens)


def expected_kv(n_rows: int) -> KVTotals:
    """Return what the fake engine says that `n_rows` rows did to its pool."""
    kv = testing.KV
    return KVTotals(
        rows=n_rows,
        preemptions=n_rows * kv.preemptions,
        copies=n_rows * kv.copies,
        utilisation=kv.utilisation,
        sharing_saving=kv.sharing_saving,
    )


def submit_rows(
    store: Store,
    home: Path,
    model: ModelRecord,
    rows: Sequence[dict[str, Any] | bytes],
    *,
    start: bool = True,
    **fields: Any,
) -> JobRecord:
    """Store rows as an input of `home`, submit a job for it and start the job."""
    lines = [row if isinstance(row, bytes) else orjson.dumps(row) for row in rows]
    stored = ingest(
        io.BytesIO(b"\n".join(lines)),
        storage=LocalStorage(home),
        defaults={},
        model=model.name,
        on_invalid=OnInvalid.ROW_ERROR,
    )
    job = store.jobs.submit(
        NewJob(
            input_sha256=stored.sha256,
            input_bytes=stored.bytes,
            n_rows=stored.n_rows,
            model=model.name,
            model_sha256=model.sha256,
            **fields,
        )
    )
    if start:
        store.dispatch.start_due()
    return store.jobs.by_id(job.id)


@contextmanager
def fake_runner(
    store: Store,
    home: Path,
    *,
    factory: str = testing.FAST,
    start: bool = True,
    limits: ResultLimits | None = None,
    **settings: Any,
) -> Iterator[ShardRunner]:
    """Yield a worker without a queue, started unless told otherwise."""
    values = {"lease_ttl": 60.0, "engine": {"max_num_seqs": 16}, **settings}
    runner = ShardRunner(
        Settings(home=home, **values),
        pin_model(home) if not (home / "models").exists() else _model(home),
        store=store,
        storage=LocalStorage(home),
        factory=factory,
        engine_log=home / "engine.log",
        limits=limits,
    )
    try:
        if start:
            runner.start(CancelToken())
        yield runner
    finally:
        runner.close()


def run_all(runner: ShardRunner, job: JobRecord) -> None:
    """Let a runner compute every shard of a job and wait until each has left it."""
    for shard in runner.store.jobs.shards(job.id):
        runner.run_shard(shard.id)
    wait_until(lambda: not len(runner.shards))


def rows_of_parts(store: Store, home: Path, job: JobRecord) -> list[ResultRow]:
    """Return the rows of every committed part of a job, in input order."""
    segments = store.finalization.segments(job.id)
    paths = [segment.part.path for segment in segments if segment.part is not None]
    storage = LocalStorage(home)
    return [row for path in paths for row in read_results(storage, path)]


def files_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def leased(store: Store) -> int:
    """Return how many shards are leased."""
    with store.database.begin_reading() as connection:
        query = shards.select().where(shards.c.state == "leased")
        return len(connection.execute(query).all())


def _model(home: Path) -> ModelRecord:
    return Registry(home / "models").get("tiny")

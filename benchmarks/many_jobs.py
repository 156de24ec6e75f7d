"""Queries of users and of the coordinator on 100,000 jobs, for benchmarks/queries.py.

Most jobs have ended; some wait, some run. They belong to ten tenants; the one that asks has half of
them. All names are given to twenty jobs each, but one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, Final

from sqlalchemy import Connection, insert, text
from uuid_utils import uuid7

from batchgen.core.row_lengths import RowLengths
from batchgen.core.states import JobState, ShardState
from batchgen.database.tables import inputs, jobs, shards, totals
from batchgen.errors import JobNotFound
from batchgen.jobs.records.job_records import LOCAL_TENANT, NewJob
from batchgen.service import Service

MODELS: Final = ("benchmark", "other", "third")
TENANTS: Final = 9  # beside the one that asks
NAMESAKES: Final = 20  # jobs of one name
ROWS: Final = 10  # of one job
INPUT: Final = "0" * 64
AT_ONCE: Final = 5_000  # rows of one INSERT
ONLY_NAME: Final = "the only one of its name"

Row = dict[str, Any]


def fill_jobs(service: Service, number: int, unended: int) -> None:
    """Insert so many jobs, of which `unended` wait or run."""
    with service.store.database.begin() as connection:
        stored = {"state": "ready", "bytes": 1000, "n_rows": ROWS, "format": "jsonl"}
        connection.execute(insert(inputs).values(sha256=INPUT, created_at=1.0, **stored))
        first = connection.execute(text("SELECT coalesce(max(id), 0) + 1 FROM jobs")).scalar_one()
        rows = (_job(first + at, at, number - at <= unended) for at in range(number))
        while some := list(islice(rows, AT_ONCE)):
            _insert(connection, some)
        _analyze(connection, first + number)


def looks(service: Service) -> dict[str, Callable[[], object]]:
    """Return, by name, the calls to be timed."""
    newest = service.records(limit=1)[0].public_id
    ids = _others(service)
    numbers = count()
    lengths = RowLengths(prompt_tokens=20.0)

    def create() -> object:
        new = NewJob(
            input_sha256=INPUT,
            input_bytes=1000,
            n_rows=ROWS,
            lengths=lengths,
            model=MODELS[0],
            model_sha256="0" * 64,
            name=f"new {next(numbers)}",
        )
        return service.store.jobs.submit(new)

    return {
        "status by id": lambda: service.status(next(ids)),
        "status by beginning": lambda: service.status(newest[:24]),
        "status by end": lambda: service.status(next(ids)[-12:]),
        "status by name": lambda: service.status(ONLY_NAME),
        "status by a common name": lambda: service.status("nightly 7"),
        "no such name": lambda: _not_found(service, "nihgtly 3"),
        "ls": service.jobs,
        "ls of a state": lambda: service.jobs(state="running"),
        "create": create,
        "model in use": lambda: service.store.jobs.needing_model(MODELS[1]),
        "start_due": service.store.dispatch.start_due,
        "expire_due": service.store.dispatch.expire_due,
        "models with work": service.store.dispatch.models_with_work,
        "dispatch": lambda: _dispatch(service),
        "jobs to finalize": service.store.finalization.finalizable,
    }


def _dispatch(service: Service) -> None:
    dispatch = service.store.dispatch
    dispatch.unmark(dispatch.take(MODELS[0], limit=16, redispatch_after=30.0))


def _others(service: Service) -> Iterator[str]:
    """Yield ids of jobs all over the table, again and again."""
    with service.store.database.begin_reading() as connection:
        query = "SELECT public_id FROM jobs WHERE tenant_id = 'local' AND id % 97 = 0"
        found = list(connection.execute(text(query)).scalars())
    assert found, "more jobs are needed"
    while True:
        yield from found


def _not_found(service: Service, name: str) -> None:
    try:
        service.status(name)
    except JobNotFound:
        return
    raise AssertionError(f"{name} was found")


def _job(job_id: int, at: int, is_open: bool) -> Row:
    public_id = uuid7().hex
    state = (JobState.RUNNING, JobState.QUEUED)[at % 2] if is_open else JobState.COMPLETED
    return {
        "id": job_id,
        "public_id": public_id,
        "reversed_id": public_id[::-1],
        "tenant_id": LOCAL_TENANT if at % 2 else f"tenant-{at % TENANTS}",
        "idem_key": secrets.token_hex(16),
        "name": ONLY_NAME if at == 1 else f"nightly {at // NAMESAKES}",
        "input_sha256": INPUT,
        "model": MODELS[at % len(MODELS)],
        "model_sha256": "0" * 64,
        "params": "{}",
        "state": state,
        "not_before": 1e12 if state is JobState.QUEUED else 0.0,
        "n_rows": ROWS,
        "n_positions": ROWS,
        "expected_tokens": 1000,
        "created_at": 1.0 + at,
        "started_at": 1.0 + at,
        "ended_at": None if is_open else 2.0 + at,
        "dataset_path": None if is_open else f"datasets/{public_id}/e1",
        "manifest_sha256": None if is_open else "0" * 64,
    }


def _insert(connection: Connection, some: list[Row]) -> None:
    connection.execute(insert(jobs), some)
    ended = {False: ROWS, True: 0}
    counts = [
        {
            "job_id": job["id"],
            "n_rows": ended[job["ended_at"] is None],
            "n_ok": ended[job["ended_at"] is None],
            "completion_tokens": 100 * ended[job["ended_at"] is None],
        }
        for job in some
    ]
    connection.execute(insert(totals), counts)
    ready = [
        {
            "job_id": job["id"],
            "pos_start": 0,
            "pos_end": ROWS,
            "n_rows": ROWS,
            "state": ShardState.READY if job["ended_at"] is None else ShardState.STOPPED,
        }
        for job in some
    ]
    connection.execute(insert(shards), ready)


def _analyze(connection: Connection, next_id: int) -> None:
    """Let PostgreSQL know the sizes of tables, as its autovacuum soon would."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ALTER SEQUENCE jobs_id_seq RESTART WITH {next_id}"))
        connection.execute(text("ANALYZE"))

"""A whole installation of real processes, made to suffer: start, submit, hurt, drain, count.

job = cluster.submit(200)
victim = cluster.worker(failpoint="part.committing=kill")
…
cluster.worker()
cluster.drain(job)        every row once, every invariant holds, whatever happened before
"""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen import failpoints
from batchgen.core.rows import ResultRow
from batchgen.core.states import JobState
from batchgen.database.database import Database
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.verify import verify_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_invariants
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers import testing
from tests.support.holding import Hold
from tests.support.homes import MODEL, pin_model
from tests.support.nursery import Member, run_process, run_stack
from tests.support.watch import seen, watch
from tests.support.workers import questions, submit_rows, wait_until

ROWS = 200
TTL = 2.0  # seconds
RECOVERY = TTL + 10.0  # seconds after any death: promise R3
PATIENCE = 60.0  # seconds until a drain has failed, on a machine that does much else

FAST_SETTINGS: dict[str, Any] = {
    "lease_ttl": TTL,
    "checkpoint_interval": 0.5,
    "redispatch_after": 2.0,
    "heartbeat_interval": 0.5,
    "coordinator_interval": 0.1,
    "stall_timeout": 3.0,
    "drain_grace": 1.0,
    "engine": {"max_num_seqs": 16},
}


@dataclass
class Toll:
    """The cost of the faults of a test, over all of its jobs."""

    injections: int = 0
    rows_in: int = 0
    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    false_errors: int = 0
    seconds: float = 0.0
    timed: bool = False  # whether the machine is the suite's alone, as `make faults` wants it

    def assert_within(self, seconds: float) -> None:
        """Fail if the recovery took longer, where time is judged at all."""
        assert not self.timed or self.seconds < seconds, self


@dataclass
class Cluster:
    """Processes of one home, one database and one broker, and the store to look at them."""

    settings: Settings
    folder: Path
    toll: Toll = field(default_factory=Toll)
    members: list[Member] = field(default_factory=list)
    _hurt_at: float | None = None

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        #: Lets every fake engine of the cluster end so many rows and no more.
        self.brake = Hold(self.folder / "hold")
        self.model = pin_model(self.home)
        self.storage = LocalStorage(self.home)
        self.store = Store(Database(self.settings.effective_database_url))
        watch(self.store.database)

    @property
    def home(self) -> Path:
        return self.settings.home

    def coordinator(self, **options: Any) -> Member:
        return self.start("coordinator", run_process, ["coordinator"], **options)

    def worker(self, factory: str = testing.FAST, **options: Any) -> Member:
        return self.start("worker", run_process, ["worker", MODEL, factory], **options)

    def stack(self) -> Member:
        """Start `batchgen up`: a coordinator and a worker of its own."""
        return self.start("up", run_stack, [MODEL])

    def start(
        self,
        name: str,
        target: Callable[[list[str]], int],
        arguments: list[str],
        *,
        failpoint: str = "",
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Member:
        """Start a process under the cluster's settings, some of them changed."""
        changed = Settings(**{**self.settings.model_dump(), **settings})
        log = self.folder / f"{name}-{len(self.members)}.log"
        held = {testing.HOLD: str(self.brake.path)}
        variables = {**held, **(environment or {}), failpoints.VARIABLE: failpoint}
        member = Member(name, target, arguments, changed, log, variables)
        self.members.append(member)
        return member

    def submit(
        self, rows: int | Sequence[dict[str, Any] | bytes] = ROWS, **fields: Any
    ) -> JobRecord:
        """Submit greedy questions, or rows of the test's own; a coordinator starts the job."""
        asked = questions(rows) if isinstance(rows, int) else rows
        return submit_rows(self.store, self.home, self.model, asked, start=False, **fields)

    def hold(self, member: Member) -> None:
        """Send SIGSTOP, and see that the process sleeps outside of any SQLite transaction."""
        member.send(signal.SIGSTOP)
        self.await_held(member)

    def await_held(self, member: Member) -> None:
        """Wait until SIGSTOP holds a process; one that sleeps on SQLite's lock has to go on.

        A lock of SQLite's belongs to a process: asleep with it, one stops the whole home until it
        is continued or killed. That is SQLite's, and not what these faults are about. A thread at
        a failpoint `stop:1` stays there while the others get out of their transactions.
        """
        wait_until(lambda: member.is_stopped)
        while self._is_locked():
            member.send(signal.SIGCONT)
            time.sleep(0.02)
            member.send(signal.SIGSTOP)
            wait_until(lambda: member.is_stopped)

    def _is_locked(self) -> bool:
        file = self.store.database.file
        if file is None:
            return False
        with closing(sqlite3.connect(file, timeout=0.05, isolation_level=None)) as connection:
            try:
                # a reader asleep is enough to keep every writer waiting, and they keep the rest
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
        return False

    def hurt(self) -> None:
        """Count one injection; the recovery is timed from the last one."""
        self.toll.injections += 1
        self._hurt_at = time.monotonic()

    def done(self, job: JobRecord) -> int:
        """Return how many rows of a job are done."""
        return self.store.jobs.progress(job.id).rows_done

    def await_done(self, job: JobRecord, rows: int) -> None:
        """Wait until some rows of a job are done."""
        wait_until(lambda: self.done(job) >= rows)

    def drain(
        self,
        job: JobRecord,
        *,
        state: JobState = JobState.COMPLETED,
        errors: Sequence[str] = (),
        within: float = PATIENCE,
    ) -> list[ResultRow]:
        """Wait for a job's unattended end and return its rows, each there once.

        `errors` are the custom ids of rows that must be error rows; of others it is a false error.
        """
        wait_until(lambda: self.store.jobs.by_id(job.id).state.ended, within=within)
        if self._hurt_at is not None:
            self.toll.seconds = max(self.toll.seconds, time.monotonic() - self._hurt_at)
        rows = self.count(job, state=state, errors=errors)
        self.check()
        return rows

    def check(self) -> None:
        """Check every invariant, and what the faults have cost."""
        assert check_invariants(self.store, self.storage) == []
        assert seen(self.store.database) == []
        toll = self.toll
        costs = (toll.lost, toll.duplicated, toll.unexpected, toll.false_errors)
        assert costs == (0, 0, 0, 0), toll

    def count(
        self, job: JobRecord, *, state: JobState = JobState.COMPLETED, errors: Sequence[str] = ()
    ) -> list[ResultRow]:
        """Compare what went into an ended job with what came out, as multisets."""
        job = self.store.jobs.by_id(job.id)
        assert job.state is state, job.error
        assert job.dataset_path is not None
        root = self.home / job.dataset_path
        rows = list(iter_rows(root))
        found = Counter(row.row for row in rows)
        expected = Counter(range(job.n_rows))
        toll = self.toll
        toll.rows_in += job.n_rows
        toll.lost += (expected - found).total()
        toll.duplicated += sum(times - 1 for times in found.values())
        toll.unexpected += len(found.keys() - expected.keys())
        if job.state is JobState.COMPLETED:
            failed = {row.custom_id for row in rows if row.error is not None}
            toll.false_errors += len(failed - set(errors))
            assert failed >= set(errors), f"no error row: {set(errors) - failed}"
        assert [row.row for row in rows] == sorted(row.row for row in rows)
        assert verify_dataset(root) == []
        return rows

    def close(self) -> None:
        """End every process and leave none behind."""
        engines = [pid for member in self.members if member.is_alive for pid in member.children()]
        for member in self.members:
            member.close()
        self.store.close()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines))


@contextmanager
def running_cluster(
    folder: Path, *, database_url: str, broker_url: str, **settings: Any
) -> Iterator[Cluster]:
    """Yield a cluster without a process; none of those started outlives the block."""
    values = {**FAST_SETTINGS, **settings}
    cluster = Cluster(
        Settings(home=folder / "home", database_url=database_url, broker_url=broker_url, **values),
        folder,
    )
    try:
        yield cluster
    finally:
        cluster.close()

"""Real processes: coordinators, workers and local runs, and what must be true when they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen import failpoints
from batchgen.core.rows import ResultRow
from batchgen.core.states import JobState
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.verify import verify_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.repair.invariants import check_invariants
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen_workers.service.local_process import environment_of
from tests.support.tiny_models import tiny_llama
from tests.support.workers import wait_until

LOCAL_RUN = """
import sys
from batchgen.settings import Settings
from batchgen_workers.engine_process.process import ENGINE
from batchgen_workers.service.local import run_local
run_local(Settings(), sys.argv[1], factory=(sys.argv[2:] or [ENGINE])[0])
"""

PROCESS = "batchgen_workers.service.local_process"


def real_model(home: Path) -> ModelRecord:
    """Register a tiny random model that the real engine computes."""
    return Registry(home / "models").import_model("tiny", tiny_llama(home / "source"))


class Process:
    """A process of ours, its log kept in a file."""

    def __init__(
        self, command: list[str], settings: Settings, log: Path, *, failpoint: str = ""
    ) -> None:
        self.log = log
        environment = {"OMP_NUM_THREADS": "1", failpoints.VARIABLE: failpoint}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment_of(settings), **environment},
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self, text: str) -> bool:
        """Return whether `text` stands in the log."""
        return text in self.log.read_text(encoding="utf-8", errors="replace")

    def children(self) -> list[int]:
        """Return the ids of its child processes."""
        path = Path(f"/proc/{self.pid}/task")
        tasks = path.iterdir() if path.exists() else []
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it with -9 and wait for its end."""
        self._process.kill()
        self._process.wait()

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit status."""
        return self._process.wait(timeout)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class Processes:
    """Starts processes under one home's settings."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._started: list[Process] = []

    def coordinator(self, *, failpoint: str = "") -> Process:
        return self._start("coordinator", "-m", PROCESS, "coordinator", failpoint=failpoint)

    def worker(self, *factory: str, model: str = "tiny", failpoint: str = "") -> Process:
        command = ("-m", PROCESS, "worker", model)
        return self._start("worker", *command, *factory, failpoint=failpoint)

    def local_run(self, job: JobRecord, *factory: str, failpoint: str = "") -> Process:
        return self._start("run", "-c", LOCAL_RUN, job.public_id, *factory, failpoint=failpoint)

    def script(self, text: str, *arguments: str, failpoint: str = "") -> Process:
        return self._start("script", "-c", text, *arguments, failpoint=failpoint)

    def end(self) -> None:
        """End every one that still runs."""
        for process in self._started:
            process.end()

    def _start(self, name: str, *arguments: str, failpoint: str = "") -> Process:
        log = self._folder / f"{name}-{len(self._started)}.log"
        process = Process([sys.executable, *arguments], self.settings, log, failpoint=failpoint)
        self._started.append(process)
        return process


@contextmanager
def processes(settings: Settings, folder: Path) -> Iterator[Processes]:
    """Yield a starter of processes; none of them outlives the block."""
    started = Processes(settings, folder)
    try:
        yield started
    finally:
        started.end()


def half_done(store: Store, job: JobRecord, *, rows: int) -> Callable[[], bool]:
    """Return whether `rows` rows are done of a job that something holds before its end."""

    def happened() -> bool:
        progress = store.jobs.progress(job.id)
        assert progress.rows_done < job.n_rows, "nothing holds it"
        return progress.rows_done >= rows

    return happened


def await_end(store: Store, job: JobRecord) -> None:
    """Wait until a job has completed."""
    wait_until(lambda: store.jobs.by_id(job.id).state.ended)
    assert store.jobs.by_id(job.id).state is JobState.COMPLETED


def dataset_rows(store: Store, home: Path, job: JobRecord) -> list[ResultRow]:
    """Return the rows of a completed job: every one once, in order, none an error, all sound."""
    path = store.jobs.by_id(job.id).dataset_path
    assert path is not None
    rows = list(iter_rows(home / path))
    assert [row.row for row in rows] == list(range(job.n_rows))
    assert [row.error for row in rows if row.error] == []
    assert verify_dataset(home / path) == []
    assert check_invariants(store, LocalStorage(home)) == []
    return rows

"""Processes of batchgen that start in milliseconds: forked from one that has imported everything.

They are real processes with a session, a log and settings of their own, and die real deaths; only
the second and a half of imports is paid once.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from batchgen import failpoints
from batchgen.settings import Settings
from batchgen_workers.service.local_process import environment_of

PRELOADED = (
    "batchgen.dataset.dataset",
    "batchgen.service.submission",
    "batchgen_workers.service.coordinator",
    "batchgen_workers.service.local",
    "batchgen_workers.service.local_stack",
    "batchgen_workers.testing",
    "batchgen_workers.service.worker",
    "tests.support.nursery",
)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))

Made = TypeVar("Made")


class Member:
    """One process of a cluster."""

    def __init__(
        self,
        name: str,
        target: Callable[[list[str]], int],
        arguments: list[str],
        settings: Settings,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.log = log
        log.touch()
        theirs, self._life = _context.Pipe(duplex=False)
        values = {**environment_of(settings), "OMP_NUM_THREADS": "1", **environment}
        self._process = _context.Process(
            target=_live, args=(target, arguments, values, str(log), theirs), name=name
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    @property
    def is_stopped(self) -> bool:
        """True if SIGSTOP holds every thread of it: one within a system call may end that first."""
        return is_stopped(self.pid)

    def said(self, text: str) -> bool:
        """Return whether `text` stands in its log."""
        return text in self.log.read_text(encoding="utf-8", errors="replace")

    def count(self, text: str) -> int:
        """Return how often `text` stands in its log."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(text)

    def pid_of(self, name: str) -> int:
        """Return the process id that `up` last gave for one of its processes."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        line = [line for line in lines if line.startswith(f"{name} started")][-1]
        return int(line.rpartition("pid ")[2].rstrip(")"))

    def wakes_up_until(self, text: str) -> bool:
        """Continue it wherever SIGSTOP holds it, and return whether `text` stands in its log."""
        if self.is_stopped:
            self.send(signal.SIGCONT)
        return self.said(text)

    def children(self) -> list[int]:
        """Return the ids of its child processes: of a worker, the engine."""
        tasks = Path(f"/proc/{self.pid}/task")
        try:
            found = [(task / "children").read_text().split() for task in tasks.iterdir()]
            return [int(pid) for pids in found for pid in pids]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with -9 and wait for its end."""
        self._process.kill()
        self._process.join()

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end and return the exit status."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"{self.name} did not end within {timeout} s"
        return self._process.exitcode

    def close(self) -> None:
        """End it, whatever it does."""
        self._life.close()
        if self.is_alive:
            self._process.kill()
        self._process.join()
        self._process.close()


def run_process(arguments: list[str]) -> int:
    """Be a process of the local stack, as `python -m batchgen_workers.service.local_process` is."""
    from batchgen_workers.service.local_process import main

    return main(arguments)


def run_command(arguments: list[str]) -> int:
    """Be one `batchgen` command."""
    from batchgen_cli.main import cli

    cli.main(arguments, prog_name="batchgen", standalone_mode=False)
    return 0


def run_stack(arguments: list[str]) -> int:
    """Be `batchgen up` for these models, with the fake engine."""
    from batchgen_workers.service.local_stack import up
    from batchgen_workers.testing import FAST

    for event in up(Settings(), arguments, factory=FAST):
        print(event, flush=True)  # noqa: T201 (the log)
    return 0


def run_job(arguments: list[str]) -> int:
    """Be `batchgen run` of a job that was submitted, with an engine of the test's choice."""
    from batchgen_workers.logs import configure_logging
    from batchgen_workers.service.local import run_local

    configure_logging()
    job, factory = arguments
    run_local(Settings(), job, factory=factory)
    return 0


def _live(
    target: Callable[[list[str]], int],
    arguments: list[str],
    environment: Mapping[str, str],
    log: str,
    life: Connection,
) -> None:
    os.setsid()
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for taken, given in ((life.fileno(), 0), (sink, 1), (sink, 2)):
        os.dup2(taken, given)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor)
    faulthandler.register(signal.SIGUSR1)  # says in the log where every thread is
    os.environ.update(environment)
    failpoints.arm(environment.get(failpoints.VARIABLE, ""))
    sys.exit(target(arguments))


def is_stopped(pid: int) -> bool:
    """Return whether SIGSTOP holds every thread of a process."""
    return _states(pid) == {"T"}


def _states(pid: int) -> set[str]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        lines = [(task / "stat").read_text(encoding="utf-8") for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return set()  # the process, or a thread just now
    return {line.rpartition(")")[2].split()[0] for line in lines}

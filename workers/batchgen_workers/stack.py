"""`batchgen up`: broker, coordinator and workers on one machine, watched and started again.

up ─┬─ broker (Valkey, where no URL is set)
    ├─ coordinator
    └─ worker for each model ── engine child
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from batchgen.errors import BatchgenError
from batchgen.jobs.identity import open_storage
from batchgen.service.database import open_database
from batchgen.service.exposure import check_exposure
from batchgen.settings import Settings
from batchgen_workers.broker_server import BrokerServer
from batchgen_workers.process import spawn
from batchgen_workers.signals import on_ending

MAX_RESTARTS = 5  # of one process within RESTART_SPAN
RESTART_SPAN = 60.0  # seconds
RESTART_PAUSE = 1.0  # seconds
HOPELESS = (2, 4)  # exit statuses of what the next start would only meet again
STOP_LIMIT = 30.0  # seconds a process may take to end, beside a worker's grace


class StackEventKind(StrEnum):
    """What happened to a process of the stack."""

    STARTED = "started"  #: It runs.
    ENDED = "ended"  #: It ended by itself, and is started again.
    STOPPING = "stopping"  #: It was asked to end.
    STOPPED = "stopped"  #: It ended as asked.


@dataclass(frozen=True, slots=True, kw_only=True)
class StackEvent:
    """One thing that happened to one process of the stack."""

    kind: StackEventKind
    # broker, coordinator, or worker and its model
    process: str
    pid: int
    # exit status, None while it runs
    status: int | None = None

    def __str__(self) -> str:
        status = "" if self.status is None else f", exit status {self.status}"
        return f"{self.process} {self.kind} (pid {self.pid}{status})"


@dataclass(slots=True)
class _Member:
    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] = field(init=False)
    watcher: threading.Thread = field(init=False)
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RESTARTS))

    def event(self, kind: StackEventKind) -> StackEvent:
        return StackEvent(
            kind=kind, process=self.name, pid=self.process.pid, status=self.process.returncode
        )


def up(settings: Settings, models: Sequence[str], *, factory: str = "") -> Iterator[StackEvent]:
    """Run the stack while the events are iterated; end it on a signal, workers first.

    Workers drain into checkpoints. A process that ends by itself is started again. `factory`
    names another engine (tests).

    Raises:
        BrokerUnavailable: no broker is configured, and none can be started.
        DatabaseUnavailable, SchemaMismatch, StoreMismatch, InvalidParameter: before anything is
            started.
        BatchgenError: a process cannot be kept alive; the others have been ended.
    """
    check_exposure(settings)
    with closing(open_database(settings)) as database:
        open_storage(database, settings.home).check()
    broker = None if settings.broker_url else BrokerServer()
    members: list[_Member] = []
    if broker is not None:
        members.append(_Member("broker", broker.start))
        settings = settings.model_copy(update={"broker_url": broker.url})
    members.append(_Member("coordinator", lambda: spawn(settings, "coordinator")))
    extra = [factory] if factory else []
    for model in models:
        members.append(_worker(settings, model, extra))
    try:
        yield from _Stack(members, settings.drain_grace + STOP_LIMIT).run()
    finally:
        if broker is not None:
            broker.remove()


def _worker(settings: Settings, model: str, extra: list[str]) -> _Member:
    return _Member(f"worker {model}", lambda: spawn(settings, "worker", model, *extra))


class _Stack:
    """Starts the members in order and ends them in the opposite one."""

    def __init__(self, members: list[_Member], stop_limit: float) -> None:
        self._members = members
        self._stop_limit = stop_limit
        # members that ended; None for a signal
        self._happened: queue.SimpleQueue[_Member | None] = queue.SimpleQueue()
        self._running: list[_Member] = []

    def run(self) -> Iterator[StackEvent]:
        with on_ending(lambda: self._happened.put(None)):
            try:
                for member in self._members:
                    yield self._start(member)
                while (ended := self._happened.get()) is not None:
                    yield ended.event(StackEventKind.ENDED)
                    yield self._start_again(ended)
                yield from self._stop()
            finally:
                self._kill()

    def _start(self, member: _Member) -> StackEvent:
        member.process = member.start()
        self._running.append(member)
        member.watcher = threading.Thread(target=self._watch, args=(member,), daemon=True)
        member.watcher.start()
        return member.event(StackEventKind.STARTED)

    def _watch(self, member: _Member) -> None:
        member.process.wait()
        if member.process.stdin is not None:
            member.process.stdin.close()
        self._happened.put(member)

    def _start_again(self, member: _Member) -> StackEvent:
        self._running.remove(member)
        status = member.process.returncode
        if status in HOPELESS:
            raise BatchgenError(f"The {member.name} cannot run, see its log: exit status {status}.")
        now = time.monotonic()
        full = len(member.restarts) == MAX_RESTARTS
        if full and now - member.restarts[0] < RESTART_SPAN:
            raise BatchgenError(
                f"The {member.name} ended {MAX_RESTARTS + 1} times within a minute, the last time "
                f"with status {status}. See its log."
            )
        member.restarts.append(now)
        time.sleep(RESTART_PAUSE)
        return self._start(member)

    def _stop(self) -> Iterator[StackEvent]:
        # Workers drain side by side; the coordinator and the broker they talk to go after them.
        groups: list[list[_Member]] = [[], []]
        for member in self._running:
            groups[not member.name.startswith("worker")].append(member)
        for group in (groups[0], *([member] for member in reversed(groups[1]))):
            for member in group:
                member.process.terminate()
                yield member.event(StackEventKind.STOPPING)
            for member in group:
                _wait(member, self._stop_limit)
                self._running.remove(member)
                yield member.event(StackEventKind.STOPPED)

    def _kill(self) -> None:
        """End what still runs, because the iteration was given up or a member was."""
        for member in self._running:
            member.process.terminate()
        for member in reversed(self._running):
            _wait(member, self._stop_limit)


def _wait(member: _Member, limit: float) -> None:
    try:
        member.process.wait(limit)
    except subprocess.TimeoutExpired:
        member.process.kill()
    member.watcher.join()

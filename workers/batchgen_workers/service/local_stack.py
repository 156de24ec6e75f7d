"""`batchgen up`: runs broker, coordinator, server and workers on one machine, and restarts them.

up ─┬─ broker (Valkey, if no URL is set)
    ├─ coordinator
    ├─ HTTP server (if it is wanted)
    └─ worker for each model ── engine process
"""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from batchgen.errors import BatchgenError, BrokerUnavailable, DatabaseUnavailable, HomeLocked
from batchgen.service.address import listen, url_of
from batchgen.service.database import make_home
from batchgen.service.exposure import check_exposure, check_server
from batchgen.settings import Settings
from batchgen_workers.queue.broker_server import BrokerServer
from batchgen_workers.retry import may_come_back, open_checked
from batchgen_workers.service.home_lock import COORDINATOR_LOCK, holder, locked_stack
from batchgen_workers.service.local_process import TRY_AGAIN, spawn
from batchgen_workers.signals import on_ending

MAX_RESTARTS = 5  # of one process within RESTART_SPAN
RESTART_SPAN = 60.0  # seconds
RESTART_PAUSE = 1.0  # seconds; doubles while a process exits with TRY_AGAIN
LONGEST_PAUSE = 15.0  # seconds
HOPELESS = (2, 4)  # exit statuses of errors that a restart cannot fix
STOP_LIMIT = 30.0  # seconds that a process may take to end, in addition to a worker's grace
ORPHAN_LIMIT = 10.0  # seconds that the coordinator of a killed `up` may take to end
POLL = 0.1  # seconds between two checks for that
SERVER = "batchgen.api.local_process"  # named, not imported: it lies in a layer above


class StackEventKind(StrEnum):
    """The kind of an event of a process of the stack."""

    STARTED = "started"  #: It runs.
    ENDED = "ended"  #: It ended by itself, and is started again.
    WAITING = "waits"  #: A service that it needs is unavailable; it is started again later.
    STOPPING = "stopping"  #: It was asked to end.
    STOPPED = "stopped"  #: It ended as asked.


@dataclass(frozen=True, slots=True, kw_only=True)
class StackEvent:
    """An event of one process of the stack."""

    kind: StackEventKind
    # broker, coordinator, server, or worker and its model; "up" for the stack itself
    process: str
    # 0 for the stack itself
    pid: int = 0
    # exit status, None while it runs
    status: int | None = None
    # why it waits
    reason: str = ""
    # the address of the server
    url: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.process} {self.kind}: {self.reason}"
        status = "" if self.status is None else f", exit status {self.status}"
        address = f" at {self.url}" if self.url and self.kind is StackEventKind.STARTED else ""
        return f"{self.process} {self.kind}{address} (pid {self.pid}{status})"


@dataclass(slots=True)
class _Member:
    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    url: str = ""
    process: subprocess.Popen[bytes] = field(init=False)
    watcher: threading.Thread = field(init=False)
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RESTARTS))
    # number of starts in a row that ended with TRY_AGAIN, and the time of the last start
    waits: int = 0
    started_at: float = 0.0

    def event(self, kind: StackEventKind, reason: str = "") -> StackEvent:
        process = self.process
        return StackEvent(
            kind=kind,
            process=self.name,
            pid=process.pid,
            status=process.returncode,
            reason=reason,
            url=self.url,
        )


@dataclass(frozen=True, slots=True)
class _Due:
    """The member is due to be started again."""

    member: _Member


def up(
    settings: Settings, models: Sequence[str], *, serve: bool = False, factory: str = ""
) -> Iterator[StackEvent]:
    """Run the stack while the events are iterated; end it on a signal, workers first.

    Workers save checkpoints when they end. A process that ends by itself is started again. An
    unavailable database is waited for, at the start too. With `serve` the HTTP server runs as well.
    `factory` names another engine (tests).

    Raises:
        HomeLocked: another `up`, or a separate coordinator, uses this home; raised first.
        BrokerUnavailable: no broker is configured, and none can be started.
        DatabaseDamaged, SchemaMismatch, StoreMismatch, InvalidParameter: before any start. The
            last is also raised if the address of the server is in use.
        BatchgenError: a process ends again and again; the others have been ended.
    """
    check_exposure(settings)
    if serve:
        check_server(settings)
    make_home(settings)
    with locked_stack(settings.home):
        broker = None if settings.broker_url else BrokerServer(settings.home)
        listener = listen(settings.server) if serve else None
        try:
            stack = _Stack(settings, _members(settings, models, broker, listener, factory))
            yield from stack.run()
        finally:
            if listener is not None:
                listener.close()
            if broker is not None:
                broker.remove()


def _members(
    settings: Settings,
    models: Sequence[str],
    broker: BrokerServer | None,
    listener: socket.socket | None,
    factory: str,
) -> list[_Member]:
    members: list[_Member] = []
    if broker is not None:
        members.append(_Member("broker", broker.start))
        settings = settings.model_copy(update={"broker_url": broker.url})
    members.append(_Member("coordinator", lambda: spawn(settings, "coordinator")))
    if listener is not None:
        members.append(_server(settings, listener))
    extra = [factory] if factory else []
    for model in models:
        members.append(_worker(settings, model, extra))
    return members


def _worker(settings: Settings, model: str, extra: list[str]) -> _Member:
    return _Member(f"worker {model}", lambda: spawn(settings, "worker", model, *extra))


def _server(settings: Settings, listener: socket.socket) -> _Member:
    descriptor = listener.fileno()

    def start() -> subprocess.Popen[bytes]:
        return spawn(settings, str(descriptor), program=SERVER, descriptors=(descriptor,))

    return _Member("server", start, url_of(settings.server, listener))


class _Stack:
    """Starts the members in order, restarts them, and ends them in the opposite order."""

    def __init__(self, settings: Settings, members: list[_Member]) -> None:
        self._settings = settings
        self._members = members
        self._stop_limit = settings.drain_grace + STOP_LIMIT
        # members that ended, members that are due to be started again, None for a signal
        self._happened: queue.SimpleQueue[_Member | _Due | None] = queue.SimpleQueue()
        self._running: list[_Member] = []

    def run(self) -> Iterator[StackEvent]:
        with on_ending(lambda: self._happened.put(None)):
            try:
                if not (yield from self._await_database()):
                    return
                for member in self._members:
                    self._start(member)
                    yield member.event(StackEventKind.STARTED)
                while (happened := self._happened.get()) is not None:
                    if isinstance(happened, _Due):
                        yield from self._start_again(happened.member)
                    else:
                        yield from self._note_end(happened)
                yield from self._stop()
            finally:
                self._kill()

    def _await_database(self) -> Generator[StackEvent, None, bool]:
        """Return True once the database is available and free, False if a signal came first."""
        waits = 0
        while True:
            try:
                with closing(open_checked(self._settings)) as database:
                    if database.is_sqlite:
                        _await_orphan(self._settings.home)
                return True
            except DatabaseUnavailable as error:
                if not may_come_back(error):
                    raise
                if not waits:
                    kind = StackEventKind.WAITING
                    yield StackEvent(kind=kind, process="up", reason=error.message)
            with suppress(queue.Empty):
                self._happened.get(timeout=_pause(waits))
                return False
            waits += 1

    def _start(self, member: _Member) -> None:
        member.process = member.start()
        member.started_at = time.monotonic()
        self._running.append(member)
        member.watcher = threading.Thread(target=self._watch, args=(member,), daemon=True)
        member.watcher.start()

    def _watch(self, member: _Member) -> None:
        member.process.wait()
        if member.process.stdin is not None:
            member.process.stdin.close()
        self._happened.put(member)

    def _note_end(self, member: _Member) -> Iterator[StackEvent]:
        self._running.remove(member)
        if member.process.returncode == TRY_AGAIN:
            if time.monotonic() - member.started_at > RESTART_SPAN:
                member.waits = 0  # it ran meanwhile: it had the service that it waited for
            yield from self._wait_for("a service that it needs is unavailable, see its log", member)
            return
        member.waits = 0
        yield member.event(StackEventKind.ENDED)
        self._count_crash(member)
        self._start_later(member, RESTART_PAUSE)

    def _count_crash(self, member: _Member) -> None:
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

    def _start_again(self, member: _Member) -> Iterator[StackEvent]:
        try:
            self._start(member)
        except (BrokerUnavailable, OSError) as error:  # no memory or disk: retry, as it ran before
            yield from self._wait_for(str(error), member)
            return
        if not member.waits:
            yield member.event(StackEventKind.STARTED)

    def _wait_for(self, reason: str, member: _Member) -> Iterator[StackEvent]:
        """Start a member later, with growing pauses; yield an event the first time."""
        if not member.waits:
            yield member.event(StackEventKind.WAITING, reason)
        self._start_later(member, _pause(member.waits))
        member.waits += 1

    def _start_later(self, member: _Member, seconds: float) -> None:
        timer = threading.Timer(seconds, self._happened.put, args=(_Due(member),))
        timer.daemon = True
        timer.start()

    def _stop(self) -> Iterator[StackEvent]:
        # Workers and server drain at the same time; coordinator and broker, which they use, later.
        groups: list[list[_Member]] = [[], []]
        for member in self._running:
            groups[member.name in ("broker", "coordinator")].append(member)
        for group in (groups[0], *([member] for member in reversed(groups[1]))):
            for member in group:
                member.process.terminate()
                yield member.event(StackEventKind.STOPPING)
            for member in group:
                _wait(member, self._stop_limit)
                self._running.remove(member)
                yield member.event(StackEventKind.STOPPED)

    def _kill(self) -> None:
        """End the members that still run after an error, or after an iteration that was left."""
        for member in self._running:
            member.process.terminate()
        for member in reversed(self._running):
            _wait(member, self._stop_limit)


def _pause(waits: int) -> float:
    return min(RESTART_PAUSE * 2.0**waits, LONGEST_PAUSE)


def _await_orphan(home: Path) -> None:
    """Wait for the coordinator of a killed `up` to end; raise HomeLocked if it does not."""
    deadline = time.monotonic() + ORPHAN_LIMIT
    while (other := holder(home, COORDINATOR_LOCK)) is not None:
        if time.monotonic() > deadline:
            raise HomeLocked(
                f"Another coordinator, or a run, works on {home} already: {other}. Stop it first."
            )
        time.sleep(POLL)


def _wait(member: _Member, limit: float) -> None:
    try:
        member.process.wait(limit)
    except subprocess.TimeoutExpired:
        member.process.kill()
    member.watcher.join()

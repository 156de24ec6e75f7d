"""The worker's side of one engine child, from its start to its death."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from batchgen import errors
from batchgen.engine.config import EngineConfig
from batchgen.engine.stats import EngineInfo, EngineStats
from batchgen.errors import (
    BatchgenError,
    Corrupt,
    EngineFailed,
    InvalidParameter,
    ModelError,
    OutOfMemory,
)
from batchgen.io.rows import Generation, GenerationRequest
from batchgen_workers.credits import Credits
from batchgen_workers.frames import (
    ROWS_PER_FRAME,
    Abort,
    Add,
    Failed,
    FrameError,
    FrameStream,
    FromEngine,
    Ready,
    Report,
    Results,
    Start,
    in_frames,
)
from batchgen_workers.logs import get_logger

ENGINE = "batchgen.engine.engine:Engine"
BATCHES_AHEAD = 2  # full batches of rows in the engine: one computing, one waiting
CLOSE_TIMEOUT = 5.0  # seconds a child may take to notice end of file
# An OpenMP thread waits for its team by spinning, five milliseconds by default. Where something
# else wants the core, what it waits for cannot run meanwhile: one busy neighbour made steps 12
# times as slow. Less than a millisecond bridges what Python does between two calls of the kernels.
OPENMP = {"GOMP_SPINCOUNT": "50000"}
# A child reads the files of one model: it asks no hub for more, and has no use for a password.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
SECRETS = frozenset({"BATCHGEN_DATABASE_URL", "BATCHGEN_BROKER_URL", "PGPASSWORD", "HF_TOKEN"})
POLL = 0.1  # seconds between looks at whether a start is still wanted
# What a child says of its model is the user's to mend, and keeps its own exit code.
REFUSALS = (ModelError, InvalidParameter, Corrupt, OutOfMemory)

log = get_logger(__name__)

OnResult: TypeAlias = Callable[[Generation], None]


class EngineClient:
    """One spawned engine child. Any thread may submit; results arrive on the reader thread.

    client = EngineClient(config)
    info = client.start()
    client.submit(requests, on_result, give_up=lambda: False)
    """

    def __init__(
        self, config: EngineConfig, *, factory: str = ENGINE, log_file: Path | None = None
    ) -> None:
        """Prepare a child; `log_file` takes what it prints, None is our own standard error."""
        self._config = config
        self._factory = factory
        self._log_file = log_file
        #: Tokens of rows that are being answered, by key, as the child last told.
        self.progress: Mapping[int, int] = {}
        self.credits = Credits(max(ROWS_PER_FRAME, BATCHES_AHEAD * config.max_num_seqs))
        #: Called once, on the reader thread, with the keys in flight, when the child is gone.
        self.on_death: Callable[[list[int]], None] = lambda keys: None
        #: Called on the reader thread after rows ended.
        self.on_answers: Callable[[], None] = lambda: None
        #: Filled by the child: what it settled on, its counters, why it ended.
        self.info: EngineInfo | None = None
        self.stats: EngineStats | None = None
        self.failure: BatchgenError | None = None
        #: Whether it ended for want of memory, or by a SIGKILL that was not ours: neither says
        #: anything of the rows it had.
        self.ran_out_of_memory = False
        self.was_killed = False
        #: When the first row was sent, seconds since the epoch.
        self.first_row_at: float | None = None
        self._pending: dict[int, OnResult] = {}
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._dead = threading.Event()
        self._moved_at = time.monotonic()
        # Whether its death is our doing.
        self._ended_here = False

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """Whether the child is gone; it never comes back."""
        return self._dead.is_set()

    @property
    def outstanding(self) -> int:
        """Rows that the engine holds."""
        return len(self._pending)

    def start(self, *, give_up: Callable[[], bool] = lambda: False) -> EngineInfo:
        """Spawn the child and wait until its model is loaded; return what it settled on.

        Raises the child's own error (UnsupportedModel, InvalidParameter …), or EngineFailed
        where it ended without a word or `give_up` became true.
        """
        ours, theirs = socket.socketpair()
        self._stream: FrameStream[FromEngine] = FrameStream(ours, FromEngine)
        with theirs:
            self._process = self._spawn(theirs)
        reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        reader.start()
        self._send(Start(config=self._config, factory=self._factory))
        while not self._answered.wait(POLL):
            if give_up():
                self.close()
                raise EngineFailed("The engine was stopped while it loaded its model.")
        if self.info is None:
            raise self.failure or EngineFailed()
        return self.info

    def submit(
        self,
        requests: Sequence[GenerationRequest],
        on_result: OnResult,
        *,
        give_up: Callable[[], bool],
    ) -> bool:
        """Hand rows to the engine as places become free; call `on_result` once for each.

        Returns False where `give_up` became true meanwhile (call `credits.wake` then); some of
        the rows may be in the engine nevertheless. Raises EngineFailed where the child is gone.
        """
        for part in in_frames(requests):
            if not self.credits.take(len(part), give_up=lambda: give_up() or self.is_dead):
                if self.is_dead:
                    raise self._death()
                return False
            self._register(part, on_result)
            self._send(Add(requests=list(part)))
        return True

    def abort(self, keys: Iterable[int]) -> None:
        """Take rows back; their callbacks are not called any more."""
        known = self._forget(keys)
        if known:
            self._send(Abort(keys=known))

    def stalled_for(self) -> float:
        """Return the seconds since the engine last moved although it has rows; 0 without rows."""
        if not self._pending or self.is_dead or self.info is None:
            self._moved_at = time.monotonic()
        return time.monotonic() - self._moved_at

    def kill(self) -> None:
        """End the child at once; what follows is its death."""
        self._ended_here = True
        self._process.kill()

    def close(self) -> None:
        """End the child and wait for it; nothing happens where it was never started."""
        if not hasattr(self, "_process"):
            return
        self._stream.close()
        try:
            self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._dead.wait(CLOSE_TIMEOUT)

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        # Spawned, never forked: no lock of ours is held in there. -P: a file of the user's named
        # torch.py in the current folder is not imported. Its output never mixes with our data.
        command = [sys.executable, "-P", "-m", "batchgen_workers.child", str(theirs.fileno())]
        sink = _open_log(self._log_file)
        try:
            return subprocess.Popen(
                command,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        finally:
            os.close(sink)

    def _register(self, requests: Sequence[GenerationRequest], on_result: OnResult) -> None:
        with self._lock:
            if self.is_dead:
                self.credits.give_back(len(requests))
                raise self._death()
            if not self._pending:
                self._moved_at = time.monotonic()
            for request in requests:
                assert request.key not in self._pending, request
                self._pending[request.key] = on_result
        if self.first_row_at is None:
            self.first_row_at = time.time()

    def _forget(self, keys: Iterable[int]) -> list[int]:
        with self._lock:
            known = [key for key in keys if self._pending.pop(key, None) is not None]
        self.credits.give_back(len(known))
        return known

    def _send(self, frame: Start | Add | Abort) -> None:
        with suppress(OSError):  # the reader sees the same end and tells everybody
            self._stream.send(frame)

    def _read(self) -> None:
        try:
            while (frame := self._stream.receive()) is not None:
                self._on_frame(frame)
        except FrameError as error:
            self.failure = error
        finally:
            self._bury()

    def _on_frame(self, frame: FromEngine) -> None:
        match frame:
            case Results(generations=generations):
                self._moved_at = time.monotonic()
                self._deliver(generations)
                self.on_answers()
            case Report(stats=stats, progress=progress):
                self.progress = progress
                if self.stats is None or stats.steps != self.stats.steps:
                    self._moved_at = time.monotonic()
                self.stats = stats
            case Ready(info=info):
                self.info = info
                self._moved_at = time.monotonic()
                self._answered.set()
            case Failed(code=code, message=message):
                self.failure = _as_error(code, message)
                self.ran_out_of_memory = code == OutOfMemory.__name__

    def _deliver(self, generations: Sequence[Generation]) -> None:
        with self._lock:
            # without those that were aborted meanwhile
            wanted = [
                (on_result, generation)
                for generation in generations
                if (on_result := self._pending.pop(generation.key, None)) is not None
            ]
        self.credits.give_back(len(wanted))
        for on_result, generation in wanted:
            on_result(generation)

    def _bury(self) -> None:
        code = self._await_end()
        self.was_killed = code == -signal.SIGKILL and not self._ended_here
        self._stream.close()
        if self.failure is None:
            self.failure = EngineFailed(f"The engine process ended ({_how(code)}).")
        with self._lock:
            self._dead.set()
            keys = list(self._pending)
            self._pending.clear()
        self.credits.give_back(len(keys))
        self._answered.set()
        self.on_death(keys)

    def _await_end(self) -> int:
        """Return the exit status of a child that has closed its socket, and may hang."""
        try:
            return self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def _death(self) -> EngineFailed:
        return EngineFailed(self.failure.message if self.failure else None)


def _environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**OPENMP, **ours, **OFFLINE}


def _open_log(path: Path | None) -> int:
    if path is None:
        return os.dup(2)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _as_error(code: str, message: str) -> BatchgenError:
    kind = getattr(errors, code, None)
    if isinstance(kind, type) and issubclass(kind, REFUSALS):
        return kind(message)
    return EngineFailed(f"The engine failed: {message}")


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"

"""Starts one engine process, speaks to it, and reports when it has ended."""

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

from batchgen import errors
from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import (
    BatchgenError,
    Corrupt,
    EngineFailed,
    InvalidParameter,
    ModelError,
    OutOfMemory,
)
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.frames import (
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

SERVER = "batchgen_workers.engine_process.server"
ENGINE = "batchgen.engine.engine:Engine"
ENDPOINT_ENGINE = "batchgen_workers.endpoint.engine:EndpointEngine"
CLOSE_TIMEOUT = 5.0  # seconds that the process may take to exit after end of file
# An OpenMP thread waits for its team by spinning, five milliseconds by default. If another process
# wants the core, the thread that is waited for cannot run meanwhile: one busy neighbour made steps
# 12 times as slow. Less than a millisecond covers the Python code between two calls of kernels.
OPENMP = {"GOMP_SPINCOUNT": "50000"}
# The process reads the files of one model: it needs no hub and no password.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
SECRETS = frozenset({"BATCHGEN_DATABASE_URL", "BATCHGEN_BROKER_URL", "PGPASSWORD", "HF_TOKEN"})
# Errors that the user can fix; they keep their class, and so their exit code.
REFUSALS = (ModelError, InvalidParameter, Corrupt, OutOfMemory)

log = get_logger(__name__)


class EngineProcess:
    """One spawned engine process. Any thread may send; results arrive on the reader thread.

    process = EngineProcess(config)
    info = process.start(token)
    process.on_results = print
    process.send(requests)

    It keeps only the keys of the rows that the engine has. Its owner limits their number and
    handles their answers.
    """

    def __init__(
        self, config: EngineConfig, *, factory: str = ENGINE, log_file: Path | None = None
    ) -> None:
        """Prepare the process; its output goes to `log_file`, None is our own standard error."""
        self._config = config
        self._factory = factory
        self._log_file = log_file
        #: {key: tokens} of rows that are being answered, as of the last report.
        self.progress: Mapping[int, int] = {}
        #: Called once, on the reader thread, with the keys in flight, when the process has ended.
        self.on_death: Callable[[list[int]], None] = lambda keys: None
        #: Called on the reader thread with rows that ended and were not aborted.
        self.on_results: Callable[[list[Generation]], None] = lambda generations: None
        #: Received from the engine: its configuration, its counters, the reason of its end.
        self.info: EngineInfo | None = None
        self.stats: EngineStats | None = None
        self.failure: BatchgenError | None = None
        #: True if memory ran out, or if a SIGKILL came that was not ours. Then the rows are not to
        #: blame for the end.
        self.ran_out_of_memory = False
        self.was_killed = False
        #: The time at which the first row was sent, seconds since the epoch.
        self.first_row_at: float | None = None
        # Keys of the rows that the engine has.
        self._keys: set[int] = set()
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._dead = threading.Event()
        self._moved_at = time.monotonic()
        # True if this object killed the process.
        self._ended_here = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """True once the process has ended."""
        return self._dead.is_set()

    @property
    def outstanding(self) -> int:
        """The number of rows that the engine has."""
        return len(self._keys)

    def start(self, token: CancelToken) -> EngineInfo:
        """Spawn the process, wait until the model is loaded, and return the engine's configuration.

        Raises the engine's own error (UnsupportedModel, InvalidParameter …), or EngineFailed if it
        ended without one or `token` was cancelled.
        """
        ours, theirs = socket.socketpair()
        self._stream: FrameStream[FromEngine] = FrameStream(ours, FromEngine)
        with theirs:
            self._process = self._spawn(theirs)
        reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        reader.start()
        self._send(Start(config=self._config, factory=self._factory))
        with token.calling(self._answered.set):
            self._answered.wait()
        if token.is_cancelled:
            self.close()
            raise EngineFailed("The engine was stopped while it loaded its model.")
        if self.info is None:
            raise self.failure or EngineFailed()
        return self.info

    def send(self, requests: Sequence[GenerationRequest]) -> None:
        """Send rows to the engine; raise EngineFailed if it has ended and got none of them."""
        self._register(requests)
        for part in in_frames(requests):
            self._send(Add(requests=list(part)))

    def abort(self, keys: Iterable[int]) -> None:
        """Take rows back: `on_results` is not called for them any more."""
        with self._lock:
            known = self._keys.intersection(keys)
            self._keys -= known
        if known:
            self._send(Abort(keys=sorted(known)))

    def stalled_for(self) -> float:
        """Return the seconds since the engine last made progress; 0 if it has no rows."""
        if not self._keys or self.is_dead or self.info is None:
            self._moved_at = time.monotonic()
        return time.monotonic() - self._moved_at

    def kill(self) -> None:
        """Kill the process; `on_death` follows."""
        self._ended_here = True
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for it; do nothing if it was never started."""
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
        # Spawned, not forked, so that it holds none of our locks. -P: a user's file named torch.py
        # in the current folder is not imported. Its output never mixes with our data.
        command = [sys.executable, "-P", "-m", SERVER, str(theirs.fileno())]
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

    def _register(self, requests: Sequence[GenerationRequest]) -> None:
        keys = {request.key for request in requests}
        with self._lock:
            if self.is_dead:
                raise EngineFailed(self.failure.message if self.failure else None)
            if not self._keys:
                self._moved_at = time.monotonic()
            assert not keys & self._keys, keys & self._keys
            self._keys |= keys
        if self.first_row_at is None:
            self.first_row_at = time.time()

    def _send(self, frame: Start | Add | Abort) -> None:
        with suppress(OSError):  # the reader thread sees the same end and reports it
            self._stream.send(frame)

    def _read(self) -> None:
        try:
            while (frame := self._stream.receive()) is not None:
                self._on_frame(frame)
        except FrameError as error:
            self.failure = error
        finally:
            self._report_death()

    def _on_frame(self, frame: FromEngine) -> None:
        match frame:
            case Results(generations=generations):
                self._moved_at = time.monotonic()
                self._deliver(generations)
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
            wanted = [generation for generation in generations if generation.key in self._keys]
            self._keys.difference_update(generation.key for generation in wanted)
        self.on_results(wanted)

    def _report_death(self) -> None:
        code = self._await_end()
        self.was_killed = code == -signal.SIGKILL and not self._ended_here
        self._stream.close()
        if self.failure is None:
            self.failure = EngineFailed(f"The engine process ended ({_exit_reason(code)}).")
        with self._lock:
            self._dead.set()
            keys = sorted(self._keys)
            self._keys.clear()
        self._answered.set()
        self.on_death(keys)

    def _await_end(self) -> int:
        """Return the exit status; kill the process if it has closed its socket but hangs."""
        try:
            return self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()


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


def _exit_reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"

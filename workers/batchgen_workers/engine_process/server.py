"""The program of the engine process, the only process that loads a model.

    python -m batchgen_workers.engine_process.server FD

reader thread:   socket ─► encoder, inbox      end of file ─► the process exits, even mid-step
encoder thread:  encoder ─► engine.encode() ─► inbox
main thread:     inbox ─► engine.admit(), engine.step() ─► socket
"""

from __future__ import annotations

import gc
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import OutOfMemory
from batchgen_workers.engine_process.encoder import Encoder
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
    ToEngine,
)
from batchgen_workers.engine_process.result_frames import in_result_frames
from batchgen_workers.exceptions import describe, is_out_of_memory, trace
from batchgen_workers.signals import ENDING
from batchgen_workers.streams import prepare_streams

REPORT_INTERVAL = 0.25  # seconds between reports while the engine works


class EngineLike(Protocol):
    """The methods of an engine that the server calls; the fake one of `testing` has them too."""

    @property
    def info(self) -> EngineInfo:
        """The configuration that the engine chose."""
        ...

    def encode(self, request: GenerationRequest) -> Any:
        """Return a row in the form that `admit` takes; called on the encoder thread only."""
        ...

    def admit(self, encoded: Any) -> None:
        """Take a row; if it cannot be computed, the next step returns it with an error."""
        ...

    def abort(self, keys: list[int]) -> None:
        """Forget rows; ignore unknown keys."""
        ...

    def step(self) -> list[Generation]:
        """Compute one batch and return the rows that ended."""
        ...

    def has_unfinished(self) -> bool:
        """Return whether a step has rows to work on."""
        ...

    def has_waiting(self) -> bool:
        """Return whether encoded rows wait for a place in the batch; called on any thread."""
        ...

    def stats(self) -> EngineStats:
        """Return the counters."""
        ...

    def progress(self) -> dict[int, int]:
        """Return {key: tokens} of the rows that are being answered."""
        ...


Stream: TypeAlias = FrameStream[ToEngine]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row that was encoded."""

    #: The result of `EngineLike.encode`.
    row: Any


@dataclass(frozen=True, slots=True)
class EncoderFailed:
    """The error that ended the encoder thread."""

    error: Exception


Incoming: TypeAlias = Start | Abort | Encoded | EncoderFailed
Inbox: TypeAlias = "queue.SimpleQueue[Incoming]"


def main(descriptor: int) -> int:
    """Serve the worker at the other end of the socket `descriptor` until it is gone."""
    _ignore_signals()
    stream: Stream = FrameStream(socket.socket(fileno=descriptor), ToEngine)
    inbox: Inbox = queue.SimpleQueue()
    encoder = encoder_into(inbox)
    threading.Thread(
        target=_read, args=(stream, inbox, encoder), name="reader", daemon=True
    ).start()
    try:
        start = inbox.get()
        assert isinstance(start, Start)
        with without_collection():
            engine = _load(start)
        encoder.start(engine.encode, is_ahead=engine.has_waiting)
        stream.send(Ready(info=engine.info))
        EngineServer(stream, inbox, engine).run()
    except Exception as error:  # noqa: BLE001 (process boundary: the worker learns why)
        _report_failure(stream, error)
        return 1


class EngineServer:
    """Steps the engine while it has rows, and waits for frames while it has none."""

    def __init__(self, stream: Stream, inbox: Inbox, engine: EngineLike) -> None:
        self._stream = stream
        self._inbox = inbox
        self._engine = engine
        self._reported = 0.0

    def run(self) -> NoReturn:
        """Serve for ever; the reader thread ends the process."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take the frames that have arrived, compute one step, send the rows that ended."""
        for frame in self._take(wait=not self._engine.has_unfinished()):
            self._apply(frame)
        if self._engine.has_unfinished():
            for generations in in_result_frames(self._engine.step()):
                self._stream.send(Results(generations=generations))
        now = time.monotonic()
        if now - self._reported >= REPORT_INTERVAL or self._is_idle():
            self._reported = now
            report = Report(stats=self._engine.stats(), progress=self._engine.progress())
            self._stream.send(report)

    def _is_idle(self) -> bool:
        return not self._engine.has_unfinished() and self._inbox.empty()

    def _take(self, *, wait: bool) -> Iterator[Incoming]:
        if wait:
            yield self._inbox.get()
        while not self._inbox.empty():
            yield self._inbox.get()

    def _apply(self, incoming: Incoming) -> None:
        match incoming:
            case Encoded(row=row):
                self._engine.admit(row)
            case Abort(keys=keys):
                self._engine.abort(keys)
            case EncoderFailed(error=error):
                raise error
            case Start():
                raise FrameError("The engine was started twice.")


def encoder_into(inbox: Inbox) -> Encoder:
    """Return an encoder, not started, whose rows go to the step thread."""
    return Encoder(
        on_encoded=lambda row: inbox.put(Encoded(row)),
        on_failure=lambda error: inbox.put(EncoderFailed(error)),
    )


def distribute(frame: ToEngine, inbox: Inbox, encoder: Encoder) -> None:
    """Pass a frame to the thread that handles it; called on the reader thread."""
    match frame:
        case Add(requests=requests):
            encoder.put(requests)
        case Abort(keys=keys):
            encoder.abort(keys)
            inbox.put(frame)  # it follows the rows that the encoder has delivered already
        case _:
            inbox.put(frame)


def _load(start: Start) -> EngineLike:
    module, _, name = start.factory.partition(":")
    factory: Callable[[EngineConfig], EngineLike] = getattr(importlib.import_module(module), name)
    return factory(start.config)


@contextmanager
def without_collection() -> Iterator[None]:
    """Turn garbage collection off for the block, and exempt the objects that exist at its end.

    It is for objects that live as long as the process: a search among them finds no garbage.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _read(stream: Stream, inbox: Inbox, encoder: Encoder) -> None:
    try:
        while (frame := stream.receive()) is not None:
            distribute(frame, inbox, encoder)
    finally:
        # The worker is gone: do not wait for the step in progress, nor for threads of libraries.
        os._exit(0)


def _ignore_signals() -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole process group. The worker still needs
    # the engine while it drains, and closes the socket at the end.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _report_failure(stream: Stream, error: Exception) -> None:
    print(trace(error), file=sys.stderr, flush=True)  # noqa: T201 (the log)
    code = OutOfMemory.__name__ if is_out_of_memory(error) else type(error).__name__
    failed: FromEngine = Failed(code=code, message=describe(error))
    with suppress(OSError):  # the worker may be gone too
        stream.send(failed)


if __name__ == "__main__":
    prepare_streams()  # the log may be on a full disk
    sys.exit(main(int(sys.argv[1])))

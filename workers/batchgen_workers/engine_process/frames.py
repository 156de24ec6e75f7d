"""Frames: the messages between a worker and its engine process, and the socket that carries them.

worker                                  engine process
  Start   ───────────────────────────►    loads the model
          ◄───────────────────────────  Ready | Failed, then the process ends
  Add, Abort ────────────────────────►    steps
          ◄───────────────────────────  Results, Report …
  end of file ───────────────────────►    the process exits at once

on the wire: length (4 bytes, big endian) │ msgpack
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import BatchgenError

MAX_FRAME = 256 * 2**20  # bytes; a longer frame is refused as garbage
ROWS_PER_FRAME = 32  # a line of input is 1 MiB at most, so a frame of rows stays below MAX_FRAME
LENGTH = struct.Struct(">I")


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first frame to an engine process."""

    # Model, device and sizes.
    config: EngineConfig
    # `module:name` of the callable that makes the engine from the config; tests name other ones.
    factory: str


class Add(msgspec.Struct, frozen=True, kw_only=True, tag="add"):
    """Rows to compute."""

    requests: list[GenerationRequest]

    def __repr__(self) -> str:  # prompts are user data: never in a log
        return f"Add({len(self.requests)} rows)"


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """Rows whose answers are not wanted any more; unknown keys are ignored."""

    keys: list[int]


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded."""

    # The configuration that the engine chose.
    info: EngineInfo


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The last frame of an engine process that can report why it ends."""

    # Name of the exception class.
    code: str
    # For a person; it quotes no row.
    message: str


class Results(msgspec.Struct, frozen=True, kw_only=True, tag="results"):
    """Rows that ended."""

    generations: list[Generation]

    def __repr__(self) -> str:
        return f"Results({len(self.generations)} rows)"


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """The engine's progress, sent a few times a second while it works and once when it is idle."""

    stats: EngineStats
    # {key: tokens} of rows that are being answered.
    progress: dict[int, int] = {}


ToEngine: TypeAlias = Start | Add | Abort
FromEngine: TypeAlias = Ready | Failed | Results | Report

Incoming = TypeVar("Incoming")


class FrameError(BatchgenError):
    """The engine's socket carried something that is no frame. Restart the worker."""


class FrameStream(Generic[Incoming]):
    """One end of the socket. Any thread may send, one thread receives."""

    def __init__(self, connection: socket.socket, incoming: Any) -> None:
        """Wrap a connected stream socket; `incoming` is the union of frames it may carry."""
        self._socket = connection
        self._sending = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(
            incoming, dec_hook=_decode
        )

    def send(self, frame: ToEngine | FromEngine) -> None:
        """Write one frame; raise OSError if the other end is gone, FrameError if it is too long."""
        payload = self._encoder.encode(frame)
        if len(payload) > MAX_FRAME:
            raise FrameError(f"A frame of {len(payload)} bytes is too long to send.")
        with self._sending:
            self._socket.sendall(LENGTH.pack(len(payload)) + payload)

    def receive(self) -> Incoming | None:
        """Return the next frame, None at end of file; raise FrameError for garbage."""
        header = self._read(LENGTH.size)
        if header is None:
            return None
        (length,) = LENGTH.unpack(header)
        if length > MAX_FRAME:
            raise FrameError(f"A frame claims {length} bytes.")
        payload = self._read(length)
        if payload is None:
            return None
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise FrameError(f"A frame cannot be read: {error}") from error

    def close(self) -> None:
        """Close the socket: the other side, and a `receive` that waits here, read end of file."""
        with suppress(OSError):  # the other side has closed it already
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._sending:  # a sender that waited for room has failed by now
            self._socket.close()

    def _read(self, count: int) -> bytearray | None:
        """Return exactly `count` bytes, None if the stream ends before."""
        data = bytearray(count)
        view, have = memoryview(data), 0
        while have < count:
            try:
                got = self._socket.recv_into(view[have:])
            except OSError:
                return None
            if got == 0:
                return None
            have += got
        return data


Item = TypeVar("Item")


def in_frames(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cut rows into pieces that each fit into one frame."""
    return [items[at : at + ROWS_PER_FRAME] for at in range(0, len(items), ROWS_PER_FRAME)]


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} does not cross a process")


def _decode(kind: type, value: Any) -> Any:
    assert kind is Path, kind
    return Path(value)

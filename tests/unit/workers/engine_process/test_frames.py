from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.params import SamplingParams
from batchgen.core.rows import Choice, Generation, GenerationRequest, RowError, Usage
from batchgen.engine.config import EngineConfig
from batchgen_workers.engine_process.frames import (
    LENGTH,
    MAX_FRAME,
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
    ToEngine,
    in_frames,
)

CONFIG = EngineConfig(model_path=Path("/models/tiny"), model_name="tiny", max_num_seqs=7)
INFO = EngineInfo(
    model="tiny",
    device="cpu",
    dtype="float32",
    block_size=16,
    num_blocks=10,
    max_length=256,
    max_batch_tokens=128,
    max_num_seqs=7,
    notes=("float32 because the CPU has no bfloat16",),
)
REQUEST = GenerationRequest(
    key=3,
    params=SamplingParams(max_tokens=5, seed=2**62, stop=("\n", "end")),
    messages=[{"role": "user", "content": "What is a secret? \U0001f600"}],
)
GENERATION = Generation(
    key=3,
    choices=[Choice(index=0, text="none of mine", finish_reason="stop", tokens=[1, 2])],
    usage=Usage(prompt_tokens=9, completion_tokens=2),
    latency_ms=12,
)

DOWN: list[Any] = [
    Start(config=CONFIG, factory="module:name"),
    Add(requests=[REQUEST, GenerationRequest(key=4, params=SamplingParams(), prompt="raw")]),
    Abort(keys=[1, 2, 3]),
]
UP: list[Any] = [
    Ready(info=INFO),
    Failed(code="UnsupportedModel", message="why"),
    Results(
        generations=[GENERATION, Generation(key=4, error=RowError(code="too_long", message="m"))]
    ),
    Report(stats=EngineStats(steps=4, busy_seconds=0.5)),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.mark.parametrize("frame", DOWN, ids=lambda frame: type(frame).__name__)
def test_a_frame_to_the_engine_arrives_as_it_was(
    frame: ToEngine, pair: tuple[socket.socket, socket.socket]
) -> None:
    FrameStream[Any](pair[0], FromEngine).send(frame)
    assert FrameStream[Any](pair[1], ToEngine).receive() == frame


@pytest.mark.parametrize("frame", UP, ids=lambda frame: type(frame).__name__)
def test_a_frame_from_the_engine_arrives_as_it_was(
    frame: FromEngine, pair: tuple[socket.socket, socket.socket]
) -> None:
    FrameStream[Any](pair[0], ToEngine).send(frame)
    assert FrameStream[Any](pair[1], FromEngine).receive() == frame


def test_frames_of_several_threads_do_not_mix(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = FrameStream[Any](pair[0], FromEngine), FrameStream[Any](pair[1], ToEngine)

    def send(first: int) -> None:
        for key in range(first, first + 200):
            sender.send(Abort(keys=[key] * 50))

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    frames: list[Any] = [receiver.receive() for _ in range(600)]
    keys = [frame.keys for frame in frames]
    for thread in threads:
        thread.join()
    assert all(len(set(key)) == 1 for key in keys)
    assert {key[0] for key in keys} == {*range(200), *range(1000, 1200), *range(2000, 2200)}


def test_the_end_of_the_stream_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert FrameStream[Any](pair[1], ToEngine).receive() is None


def test_a_frame_cut_short_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(LENGTH.pack(100) + b"only this")
    pair[0].close()
    assert FrameStream[Any](pair[1], ToEngine).receive() is None


def test_closing_wakes_a_waiting_receiver(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = FrameStream[Any](pair[0], ToEngine)
    received: list[object] = ["nothing yet"]
    thread = threading.Thread(target=lambda: received.append(stream.receive()))
    thread.start()
    stream.close()
    thread.join(10)
    assert received[-1] is None


def test_an_absurd_length_is_refused_before_memory_is_taken(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].sendall(LENGTH.pack(MAX_FRAME + 1))
    with pytest.raises(FrameError, match="claims"):
        FrameStream[Any](pair[1], ToEngine).receive()


@pytest.mark.parametrize("payload", [b"\xc1", b"\x81\xa4type\xa5other", b"\x80"])
def test_garbage_is_refused(payload: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(LENGTH.pack(len(payload)) + payload)
    with pytest.raises(FrameError, match="cannot be read"):
        FrameStream[Any](pair[1], ToEngine).receive()


def test_a_frame_of_the_wrong_direction_is_refused(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    FrameStream[Any](pair[0], ToEngine).send(UP[0])
    with pytest.raises(FrameError):
        FrameStream[Any](pair[1], ToEngine).receive()


def test_no_frame_shows_a_prompt_or_an_answer() -> None:
    shown = "".join(repr(frame) for frame in (*DOWN[1:], *UP[2:3]))
    assert "secret" not in shown
    assert "none of mine" not in shown


def test_rows_are_cut_into_frames_in_order() -> None:
    rows = list(range(2 * ROWS_PER_FRAME + 1))
    pieces = in_frames(rows)
    assert [row for piece in pieces for row in piece] == rows
    assert [len(piece) for piece in pieces] == [ROWS_PER_FRAME, ROWS_PER_FRAME, 1]

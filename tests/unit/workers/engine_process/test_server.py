from __future__ import annotations

import gc
import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import UnsupportedModel
from batchgen_workers.engine_process.frames import (
    Abort,
    Add,
    FrameError,
    FrameStream,
    FromEngine,
    Report,
    Results,
    Start,
    ToEngine,
)
from batchgen_workers.engine_process.server import (
    Encoded,
    EngineServer,
    distribute,
    encoder_into,
    without_collection,
)
from batchgen_workers.exceptions import describe
from batchgen_workers.testing import FakeEngine, answer_to

CONFIG = EngineConfig(model_path=Path("/models/tiny"), model_name="tiny", max_num_seqs=2)


class Wire:
    """A server on one end of a socket and the worker's eyes on the other."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.engine = FakeEngine(CONFIG)
        self.server = EngineServer(FrameStream[Any](near, ToEngine), self.inbox, self.engine)
        self._stream = FrameStream[Any](far, FromEngine)

    def add(self, *requests: GenerationRequest) -> None:
        for one in requests:
            self.inbox.put(Encoded(self.engine.encode(one)))

    def receive(self) -> Any:
        return self._stream.receive()


@pytest.fixture
def wire() -> Iterator[Wire]:
    near, far = socket.socketpair()
    far.settimeout(10)
    with near, far:
        yield Wire(near, far)


def request(key: int, *, tokens: int = 1) -> GenerationRequest:
    params = SamplingParams(max_tokens=tokens, temperature=0)
    return GenerationRequest(key=key, params=params, prompt=f"prompt {key}")


def test_rows_that_end_are_sent_and_reported(wire: Wire) -> None:
    wire.add(request(1), request(2))
    wire.server.turn()
    results, report = wire.receive(), wire.receive()
    assert isinstance(results, Results)
    texts = {generation.key: generation.choices[0].text for generation in results.generations}
    assert texts == {key: answer_to(f"prompt {key}", seed=None, tokens=1) for key in (1, 2)}
    assert isinstance(report, Report)
    assert (report.stats.steps, report.stats.running) == (1, 0)


def test_everything_that_has_come_in_is_taken_before_a_step(wire: Wire) -> None:
    wire.add(request(1, tokens=9), request(2, tokens=9))
    wire.inbox.put(Abort(keys=[1, 77]))
    wire.server.turn()
    stats = wire.engine.stats()
    assert (stats.steps, stats.running, stats.generated_tokens) == (1, 1, 1)


def test_a_long_batch_is_not_reported_at_every_step(wire: Wire) -> None:
    wire.add(request(1, tokens=50))
    for _ in range(50):
        wire.server.turn()
    frames = [wire.receive()]
    while not isinstance(frames[-1], Results):
        frames.append(wire.receive())
    reports = [frame for frame in frames if isinstance(frame, Report)]
    assert len(reports) < 10


def test_a_row_the_engine_refuses_comes_back_as_an_error(wire: Wire) -> None:
    wire.add(GenerationRequest(key=5, params=SamplingParams(), prompt=""))
    wire.server.turn()
    (generation,) = wire.receive().generations
    assert generation.error is not None


def test_a_row_goes_by_way_of_the_encoder_to_the_step(wire: Wire) -> None:
    encoder = encoder_into(wire.inbox)
    distribute(Add(requests=[request(1)]), wire.inbox, encoder)
    assert wire.inbox.empty()
    encoder.start(wire.engine.encode)
    wire.server.turn()
    assert [one.key for one in wire.receive().generations] == [1]


def test_an_abort_reaches_rows_in_the_encoder_and_rows_in_the_engine(wire: Wire) -> None:
    encoder = encoder_into(wire.inbox)
    wire.add(request(1, tokens=9), request(2, tokens=9))
    wire.server.turn()
    distribute(Add(requests=[request(3, tokens=9), request(4, tokens=9)]), wire.inbox, encoder)
    distribute(Abort(keys=[1, 3]), wire.inbox, encoder)
    encoder.start(wire.engine.encode)
    aborted, encoded = [wire.inbox.get(timeout=10) for _ in range(2)]
    assert (aborted.keys, encoded.row.key) == ([1, 3], 4)
    wire.inbox.put(aborted)
    wire.inbox.put(encoded)
    wire.server.turn()
    stats = wire.engine.stats()
    assert stats.running + stats.waiting == 2


def test_what_encoding_a_row_raises_ends_the_process(wire: Wire) -> None:
    encoder = encoder_into(wire.inbox)
    distribute(Add(requests=[request(1)]), wire.inbox, encoder)

    def fail(one: GenerationRequest) -> None:
        raise ValueError(one.key)

    encoder.start(fail)
    with pytest.raises(ValueError, match="1"):
        wire.server.turn()


def test_an_engine_is_started_once(wire: Wire) -> None:
    wire.inbox.put(Start(config=CONFIG, factory="x:y"))
    with pytest.raises(FrameError):
        wire.server.turn()


def test_an_error_is_described_without_quoting_a_row() -> None:
    assert describe(ValueError("the user's secret")) == "ValueError"
    assert describe(KeyError("the user's secret")) == "KeyError"
    assert describe(RuntimeError("CUDA out of memory")) == "RuntimeError: CUDA out of memory"
    assert describe(UnsupportedModel("falcon bypasses it")) == "falcon bypasses it"


def test_garbage_is_looked_for_again_once_the_engine_is_loaded_or_cannot_be() -> None:
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(UnsupportedModel), without_collection():
            assert not gc.isenabled()
            raise UnsupportedModel("no model")
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()

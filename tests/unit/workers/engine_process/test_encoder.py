from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest
from batchgen_workers.engine_process import encoder as module
from batchgen_workers.engine_process.encoder import Encoder

LIMIT = 10  # seconds until a test that waits for nothing fails


class Held:
    """An encode function that says when it begins a row, and waits until that is released."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.released = threading.Semaphore(0)

    def __call__(self, request: GenerationRequest) -> int:
        self.begun.put(request.key)
        assert self.released.acquire(timeout=LIMIT)
        return request.key


def rows(*keys: int) -> list[GenerationRequest]:
    return [GenerationRequest(key=key, params=SamplingParams(), prompt="p") for key in keys]


def encoder_into(out: queue.SimpleQueue[Any]) -> Encoder:
    return Encoder(on_encoded=out.put, on_failure=out.put)


def test_rows_are_encoded_in_order_also_those_that_came_before_the_start() -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    encoder = encoder_into(out)
    encoder.put(rows(1, 2))
    encoder.start(lambda request: request.key)
    encoder.put(rows(3))
    assert [out.get(timeout=LIMIT) for _ in range(3)] == [1, 2, 3]


def test_an_abort_takes_the_row_in_work_and_those_that_wait() -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    encoder, held = encoder_into(out), Held()
    encoder.put(rows(1, 2, 3, 4))
    encoder.start(held)
    assert held.begun.get(timeout=LIMIT) == 1
    encoder.abort([1, 3, 77])
    held.released.release(4)
    assert [out.get(timeout=LIMIT) for _ in range(2)] == [2, 4]
    assert [held.begun.get(timeout=LIMIT) for _ in range(2)] == [2, 4]
    assert held.begun.empty()


def test_a_failure_is_told_once_and_ends_the_encoding() -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    encoder = encoder_into(out)

    def fail(request: GenerationRequest) -> int:
        raise KeyError(request.key)

    encoder.put(rows(1, 2))
    encoder.start(fail)
    failed = out.get(timeout=LIMIT)
    assert isinstance(failed, KeyError)
    assert failed.args == (1,)
    assert out.empty()


def test_it_rests_while_encoded_rows_wait_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    encoder = encoder_into(out)
    looks = iter([True, True, False])  # after the first row; no rest after the second
    rests: list[float] = []

    def encode(request: GenerationRequest) -> int:
        out.put(len(rests))
        return request.key

    monkeypatch.setattr(module, "REST", 1e9)
    monkeypatch.setattr(module, "LONGEST_REST", LIMIT)
    monkeypatch.setattr("time.sleep", rests.append)
    encoder.put(rows(1, 2))
    encoder.start(encode, is_ahead=lambda: next(looks, False))
    assert [out.get(timeout=LIMIT) for _ in range(4)] == [0, 1, 2, 2]

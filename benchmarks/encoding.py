"""Measures how much rows that are being encoded slow down rows that run, with a slow template.

    python benchmarks/encoding.py MODEL_DIR [--running 128] [--rows 1000] [--template-ms 5]
                                  [--rounds 4]

128 rows decode; before every second window of steps 1,000 chats are handed in, whose template takes
5 ms of processor time each. Once the encoder thread of the engine process takes them (`beside`),
once they are encoded between two steps, as a frame of 32 rows at a time (`between`). A window ends
long before the last of them is encoded; the others are aborted then. No encoded row is computed,
so that every step computes the same 128 rows.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.engine.engine import Engine
from batchgen_workers.engine_process.frames import Abort, Add, in_frames
from batchgen_workers.engine_process.server import distribute, encoder_into

FRAME = 32  # rows that a frame brought, and that one step had to wait for
PROMPT = [1000 + token for token in range(64)]
ANSWER = 1500  # tokens; more than all windows take
WINDOW = 64  # steps
LOOPS_PER_MS = 70  # first guess at a template's rounds; measured below
INNER = 100  # turns of each round: the sandbox bounds a range
SAMPLE = 8  # rows that the template is timed with


def slow_template(loops: int) -> str:
    """Return a chat template that goes round `loops` times before it renders a chat."""
    return (
        f"{{% for i in range({loops}) %}}{{% for j in range({INNER}) %}}"
        "{% endfor %}{% endfor %}"
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    )


def chats(keys: Iterator[int], count: int) -> list[GenerationRequest]:
    """Return `count` chats with the next keys; they are encoded and never computed."""
    params = SamplingParams(max_tokens=1, temperature=0)
    return [
        GenerationRequest(
            key=key,
            params=params,
            messages=[{"role": "user", "content": f"How far is it from {key} to {key + 7}?"}],
        )
        for key in islice(keys, count)
    ]


def use_template(engine: Engine, milliseconds: float) -> float:
    """Give the encoder a template that takes so long; return what it takes, in milliseconds."""
    loops = int(LOOPS_PER_MS * milliseconds)
    for _ in range(3):
        engine.encoder.backend.chat_template = slow_template(loops)
        vars(engine.encoder).pop("chat", None)
        taken = _time_template(engine)
        loops = max(1, int(loops * milliseconds / taken))
    return taken


def _time_template(engine: Engine) -> float:
    keys = iter(range(-1000, -1000 + SAMPLE + 1))
    first, *others = chats(keys, SAMPLE + 1)
    engine.encode(first)
    began = time.perf_counter()
    for one in others:
        engine.encode(one)
    return (time.perf_counter() - began) / SAMPLE * 1000


def timed_steps(engine: Engine, before: Callable[[], bool]) -> list[float]:
    """Step until `before`, which is called before each step, returns False; return seconds."""
    seconds: list[float] = []
    while True:
        began = time.perf_counter()
        if not before():
            return seconds
        engine.step()
        seconds.append(time.perf_counter() - began)


def quiet(engine: Engine, steps: int) -> list[float]:
    """Time steps to which nothing is handed in."""
    left = iter(range(steps))
    return timed_steps(engine, lambda: next(left, None) is not None)


def between(engine: Engine, rows: list[GenerationRequest]) -> list[float]:
    """Time steps while rows are encoded on the step's own thread, a frame before each step."""
    frames = iter(in_frames(rows))

    def take() -> bool:
        frame = next(frames, None)
        for one in frame or []:
            engine.encode(one)
        return frame is not None

    return timed_steps(engine, take)


class Beside:
    """The way of the engine process: an encoder thread, and an inbox before each step."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._encoder = encoder_into(self._inbox)
        # As in a batch that is full: what is encoded waits.
        self._encoder.start(engine.encode, is_ahead=lambda: True)

    def __call__(self, rows: list[GenerationRequest]) -> list[float]:
        """Time the steps of a window that begins when the rows come; then abort the rows."""
        for frame in in_frames(rows):
            distribute(Add(requests=list(frame)), self._inbox, self._encoder)
        taken = quiet(self._engine, WINDOW)
        self._abort(rows)
        return taken

    def seconds_to_abort(self, rows: list[GenerationRequest]) -> float:
        """Return how long an abort of rows that are being encoded takes to reach the step."""
        distribute(Add(requests=rows), self._inbox, self._encoder)
        return self._abort(rows)

    def _abort(self, rows: list[GenerationRequest]) -> float:
        began = time.perf_counter()
        distribute(Abort(keys=[one.key for one in rows]), self._inbox, self._encoder)
        while not isinstance(self._inbox.get(), Abort):
            pass
        return time.perf_counter() - began


def measure(engine: Engine, *, rows: int, rounds: int) -> dict[str, Any]:
    """Alternate quiet windows with both ways of encoding; return medians in milliseconds."""
    keys = iter(range(10**6, 10**9))
    beside = Beside(engine)
    ways: dict[str, Callable[[], list[float]]] = {
        "beside": lambda: beside(chats(keys, rows)),
        "between": lambda: between(engine, chats(keys, rows)),
    }
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    worst: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            # Steps grow with the context: the mean of the windows on both sides is compared.
            before = quiet(engine, FRAME)
            busy = run()
            after = quiet(engine, FRAME)
            base = (statistics.median(before) + statistics.median(after)) / 2
            ratios[name].append(statistics.median(busy) / base)
            worst[name].append(max(busy) / base)
    return {
        name: {
            "median_step_ratio": round(statistics.median(ratios[name]), 3),
            "all": [round(ratio, 3) for ratio in ratios[name]],
            "longest_step_ratio": round(statistics.median(worst[name]), 2),
        }
        for name in ways
    } | {"seconds_to_abort": round(beside.seconds_to_abort(chats(keys, rows)), 4)}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--running", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--template-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    engine = Engine(
        EngineConfig(
            model_path=asked.model,
            model_name="encoding",
            max_num_seqs=asked.running,
            prefix_caching=False,
        )
    )
    params = SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True)
    for key in range(asked.running):
        engine.add(GenerationRequest(key=key, prompt_token_ids=PROMPT, params=params))
    template = use_template(engine, asked.template_ms)
    quiet(engine, 2 * FRAME)
    figures = measure(engine, rows=asked.rows, rounds=asked.rounds)
    print(json.dumps({"template_ms": round(template, 2), **figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

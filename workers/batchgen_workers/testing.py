"""A fake engine with the interface of the real one but no model, for tests and scale runs.

An answer depends only on the prompt, the seed and the temperature, as with the real engine.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.rows import Choice, Generation, GenerationRequest, KVUse, RowError, Usage
from batchgen.engine.config import EngineConfig
from batchgen.engine.row_errors import INVALID_LOGITS
from batchgen.errors import UnsupportedModel

FAST = "batchgen_workers.testing:FakeEngine"
SLOW = "batchgen_workers.testing:slow_engine"
REFUSING = "batchgen_workers.testing:refusing_engine"

BROKEN = "batchgen_workers.testing:broken_engine"

SEGV = "!!SEGV"  # a row with this in its prompt ends the process by a segmentation fault
EXIT = "!!EXIT"  # a row with this in its prompt ends the process
RAISE = "!!RAISE"  # a row with this in its prompt makes the step fail
HANG = "!!HANG"  # a row with this in its prompt is never answered
OOM = "!!OOM"  # with a number after it: memory runs out if more such rows run at once
NAN = "!!NAN"  # a row with this in its prompt has logits that are not numbers
MAX_LENGTH = 4096  # words that a prompt and its answer may have
DEFAULT_TOKENS = 4  # words of an answer if its row sets no max_tokens
SLOW_STEP = 0.02  # seconds
HOLD = "BATCHGEN_TEST_HOLD"  # variable with the path of a file: it limits the rows that may end
COMPUTED = "BATCHGEN_TEST_COMPUTED"  # variable with the path of a file: a line for each answer
HOLD_POLL = 0.005  # seconds between two steps of an engine that holds all of its rows
CACHED_TOKENS = 1  # of every prompt
_GREEDY = re.compile(f"{OOM}(\\d*)")
# The KV use that every row reports; there is no KV pool.
KV = KVUse(preemptions=1, copies=2, utilisation=0.75, sharing_saving=0.25)


@dataclass(slots=True)
class _Row:
    request: GenerationRequest
    prompt: str
    since: float
    words: list[str] = field(default_factory=list)
    first_word_ms: int | None = None

    @property
    def wanted(self) -> int:
        return self.request.params.max_tokens or DEFAULT_TOKENS

    @property
    def milliseconds(self) -> int:
        return int((time.monotonic() - self.since) * 1000)

    @property
    def is_at_its_last(self) -> bool:
        return len(self.words) >= self.wanted - 1


class FakeEngine:
    """Adds one word to every running row at each step.

    While the file that `HOLD` names exists, only as many rows end as the number in it. The others
    wait for their last word until the file is removed, or replaced by one with a new number.
    """

    def __init__(self, config: EngineConfig, *, step_seconds: float = 0.0) -> None:
        self._config = config
        self._step_seconds = step_seconds
        # {key: row}, oldest first
        self._rows: dict[int, _Row] = {}
        self._refused: list[Generation] = []
        self._steps = self._prompt_tokens = self._generated = self._answered = 0
        self._busy = 0.0
        # The file in force, and the number of rows that were answered before it.
        self._held_by: tuple[int, int] | None = None
        self._answered_before = 0

    @property
    def info(self) -> EngineInfo:
        """The configuration, as a real engine would report it."""
        return EngineInfo(
            model=self._config.model_name,
            device="cpu",
            dtype="float32",
            kernels="reference",
            kernels_reason="slower: nothing computes here",
            block_size=self._config.block_size,
            num_blocks=1024,
            max_length=MAX_LENGTH,
            max_batch_tokens=self._config.max_batch_tokens,
            max_num_seqs=self._config.max_num_seqs,
        )

    def encode(self, request: GenerationRequest) -> GenerationRequest:
        """Return the row unchanged, because this engine has no tokens."""
        return request

    def admit(self, encoded: GenerationRequest) -> None:
        """Take an encoded row."""
        self.add(encoded)

    def add(self, request: GenerationRequest) -> None:
        """Take a row; if its prompt is empty or too long, the next step returns an error."""
        prompt = _prompt_of(request)
        error = _refusal(prompt)
        if error is not None:
            self._refused.append(Generation(key=request.key, error=error))
            return
        self._prompt_tokens += len(prompt.split())
        self._rows[request.key] = _Row(request, prompt, time.monotonic())

    def abort(self, keys: list[int]) -> None:
        """Forget rows; ignore unknown keys."""
        for key in keys:
            self._rows.pop(key, None)

    def has_unfinished(self) -> bool:
        """Return whether a step has rows to work on."""
        return bool(self._rows or self._refused)

    def has_waiting(self) -> bool:
        """Return whether rows wait for a place in the batch."""
        return len(self._rows) > self._config.max_num_seqs

    def step(self) -> list[Generation]:
        """Add a word to the oldest `max_num_seqs` rows and return those that ended."""
        began = time.monotonic()
        running = list(self._rows.values())[: self._config.max_num_seqs]
        _run_out_of_memory(running)
        moving = self._not_held(running)
        for row in running:
            _obey_markers(row.prompt)
        for row in moving:
            row.words.append(_word(row))
            if row.first_word_ms is None:
                row.first_word_ms = row.milliseconds
        if running and not moving:
            time.sleep(HOLD_POLL)
        if self._step_seconds:
            time.sleep(self._step_seconds)
        answers = [_answer(row) for row in running if len(row.words) >= row.wanted]
        _note(row.prompt for row in running if len(row.words) >= row.wanted)
        ended = self._refused + answers
        for generation in ended:
            self._rows.pop(generation.key, None)
        self._refused = []
        self._steps += 1
        self._answered += len(answers)
        self._generated += len(moving)
        self._busy += time.monotonic() - began
        return ended

    def progress(self) -> dict[int, int]:
        """Return {key: words} of the rows that are being answered."""
        return {key: len(row.words) for key, row in self._rows.items() if row.words}

    def _not_held(self, running: list[_Row]) -> list[_Row]:
        held_by, allowed = _hold()
        if held_by is None:
            return running
        if held_by != self._held_by:
            self._held_by, self._answered_before = held_by, self._answered
        left = allowed - (self._answered - self._answered_before)
        at_their_last = [row for row in running if row.is_at_its_last]
        held = {row.request.key for row in at_their_last[max(left, 0) :]}
        return [row for row in running if row.request.key not in held]

    def stats(self) -> EngineStats:
        """Return the counters."""
        running = min(len(self._rows), self._config.max_num_seqs)
        return EngineStats(
            steps=self._steps,
            running=running,
            waiting=len(self._rows) - running,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
            kv_blocks=1024,
            kv_blocks_used=running,
            kv_utilisation=KV.utilisation,
            sharing_saving=KV.sharing_saving,
            prefix_queries=self._prompt_tokens,
            prefix_hits=CACHED_TOKENS * self._answered,
            preemptions=KV.preemptions * self._answered,
            copies=KV.copies * self._answered,
            busy_seconds=self._busy,
        )


def _note(prompts: Iterable[str]) -> None:
    """Append the prompts of answered rows to the file of `COMPUTED`, a line each."""
    lines = "".join(f"{prompt}\n" for prompt in prompts)
    if lines and COMPUTED in os.environ:
        with Path(os.environ[COMPUTED]).open("a", encoding="utf-8") as file:
            file.write(lines)


def _hold() -> tuple[tuple[int, int] | None, int]:
    """Return the identity of the file in force, None without one, and the number in it."""
    if HOLD not in os.environ:
        return None, 0
    try:
        with Path(os.environ[HOLD]).open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            return (found.st_ino, found.st_mtime_ns), int(file.read())
    except FileNotFoundError:
        return None, 0


def slow_engine(config: EngineConfig) -> FakeEngine:
    """Return an engine with slow steps, for faults at random moments."""
    return FakeEngine(config, step_seconds=SLOW_STEP)


def broken_engine(config: EngineConfig) -> FakeEngine:
    """Return an engine whose process dies at its first step."""
    return _BrokenEngine(config)


class _BrokenEngine(FakeEngine):
    def step(self) -> list[Generation]:
        os._exit(1)


def refusing_engine(config: EngineConfig) -> FakeEngine:
    """Raise UnsupportedModel, as the engine does for a model that it cannot compute."""
    raise UnsupportedModel(f"{config.model_name} bypasses the attention interface.")


def answer_to(prompt: str, *, seed: int | None, tokens: int = DEFAULT_TOKENS) -> str:
    """Return the fake engine's answer to a raw prompt; `seed` None stands for greedy decoding."""
    return " ".join(_words(prompt, seed, at) for at in range(tokens))


def _prompt_of(request: GenerationRequest) -> str:
    if request.messages is not None:
        return "\n".join(str(_content(message)) for message in request.messages)
    if request.prompt_token_ids is not None:
        return " ".join(map(str, request.prompt_token_ids))
    return request.prompt or ""


def _content(message: dict[str, Any]) -> Any:
    return message.get("content", "")


def _refusal(prompt: str) -> RowError | None:
    if not prompt:
        return RowError(code="invalid_value", message="The prompt is empty.", param="prompt")
    if len(prompt.split()) >= MAX_LENGTH:
        return RowError(
            code="context_length_exceeded", message="The prompt is too long.", param="prompt"
        )
    return None


def _run_out_of_memory(running: list[_Row]) -> None:
    greedy = [match for row in running if (match := _GREEDY.search(row.prompt))]
    if any(len(greedy) > int(match[1] or 0) for match in greedy):
        raise MemoryError


def _obey_markers(prompt: str) -> None:
    if SEGV in prompt:
        os.kill(os.getpid(), signal.SIGSEGV)
    if EXIT in prompt:
        os._exit(1)
    if RAISE in prompt:
        raise ValueError(prompt)
    if HANG in prompt:
        time.sleep(3600)


def _word(row: _Row) -> str:
    params = row.request.params
    return _words(row.prompt, None if params.greedy else params.seed, len(row.words))


def _words(prompt: str, seed: int | None, at: int) -> str:
    text = f"{seed}/{at}/{prompt}"
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()


def _answer(row: _Row) -> Generation:
    if NAN in row.prompt:
        return Generation(key=row.request.key, error=INVALID_LOGITS)
    return Generation(
        key=row.request.key,
        choices=[Choice(index=0, text=" ".join(row.words), finish_reason="length")],
        usage=Usage(
            prompt_tokens=len(row.prompt.split()),
            completion_tokens=len(row.words),
            cached_tokens=CACHED_TOKENS,
        ),
        latency_ms=row.milliseconds,
        first_token_ms=row.first_word_ms,
        kv=KV,
    )

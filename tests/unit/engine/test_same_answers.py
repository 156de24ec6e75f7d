"""The same row gives the same tokens, whatever else happens in the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.engine import Engine
from tests.unit.engine.conftest import Models, hurried, make_engine, request, run

PREFIX = "the quick brown fox jumps over the lazy dog and "
PROMPTS = [
    "what is the answer",
    PREFIX + "then the dog jumps",
    PREFIX + "another one",
    "one two three four five six seven eight nine ten",
]
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "top_p": 0.95},
    "four samples": {"temperature": 1.0, "n": 4},
    "beams": {"num_beams": 4, "n": 3},
    "wide beams": {"num_beams": 3, "n": 2, "length_penalty": 0.7, "early_stopping": True},
    "penalised": {"repetition_penalty": 1.3, "min_tokens": 5, "frequency_penalty": 0.5},
    "judged": {"temperature": 1.0, "prompt_logprobs": 2, "logprobs": True, "top_logprobs": 2},
}
BLOCKS = 32  # of 4 tokens: little more than the widest row needs alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Answers do not depend on the way in which they were computed."""

    tokens: list[list[int] | None]
    texts: list[str]
    reasons: list[str]
    scores: list[float | None]


def requests() -> list[GenerationRequest]:
    kinds = [kind for kind in KINDS.values() for _ in PROMPTS]
    prompts = PROMPTS * len(KINDS)
    return [
        request(key, prompt, seed=key, max_tokens=12 + 4 * (key % 4), **kind)
        for key, (prompt, kind) in enumerate(zip(prompts, kinds, strict=True))
    ]


def outcome(generation: Generation) -> Outcome:
    assert generation.error is None, generation.error
    return Outcome(
        tokens=[choice.tokens for choice in generation.choices],
        texts=[choice.text for choice in generation.choices],
        reasons=[choice.finish_reason for choice in generation.choices],
        scores=[pytest.approx(choice.score, abs=1e-3) for choice in generation.choices],  # type: ignore[misc]
    )


def outcomes(engine: Engine, rows: list[GenerationRequest] | None = None) -> dict[int, Outcome]:
    ended = run(engine, *(rows if rows is not None else requests()))
    return {key: outcome(generation) for key, generation in ended.items()}


@pytest.fixture(scope="module")
def undisturbed(models: Models) -> dict[int, Outcome]:
    """The answers of the rows with all the room they want and nothing cached."""
    return outcomes(make_engine(models("llama"), prefix_caching=False, max_num_seqs=64))


@pytest.mark.parametrize("preemption", ["swap", "recompute", "auto"])
@pytest.mark.parametrize("caching", [True, False], ids=["cached", "uncached"])
def test_preemption_changes_nothing(
    llama: Path, undisturbed: dict[int, Outcome], preemption: str, caching: bool
) -> None:
    engine = hurried(
        make_engine(llama, blocks=BLOCKS, preemption=preemption, prefix_caching=caching)
    )
    assert outcomes(engine) == undisturbed
    stats = engine.stats()
    assert stats.preemptions > 10
    assert (stats.swapped_blocks > 0) == (preemption != "recompute")
    assert (stats.prefix_hits > 0) == caching


def test_a_full_host_pool_changes_nothing(llama: Path, undisturbed: dict[int, Outcome]) -> None:
    engine = hurried(make_engine(llama, blocks=BLOCKS, preemption="swap", swap_memory="12K"))
    assert 0 < engine.info.host_blocks < BLOCKS // 2
    assert outcomes(engine) == undisturbed
    assert engine.stats().swapped_blocks > 0


def test_nan_in_unwritten_slots_changes_nothing(
    llama: Path, undisturbed: dict[int, Outcome]
) -> None:
    engine = hurried(make_engine(llama, blocks=BLOCKS))
    engine.cache.pool.fill_(torch.nan)
    engine.cache.host.fill_(torch.nan)
    assert outcomes(engine) == undisturbed


def test_company_changes_nothing(llama: Path, undisturbed: dict[int, Outcome]) -> None:
    rows = requests()
    alone = make_engine(llama, prefix_caching=False)
    for row in rows[::5]:
        assert outcomes(alone, [row])[row.key] == undisturbed[row.key]


def test_small_chunks_change_nothing(llama: Path, undisturbed: dict[int, Outcome]) -> None:
    engine = make_engine(llama, max_batch_tokens=5, max_num_seqs=5)
    assert outcomes(engine) == undisturbed

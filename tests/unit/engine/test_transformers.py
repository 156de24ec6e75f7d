"""Every family the engine serves, against transformers: greedy tokens, and beams with scores.

One continuous batch of both, prompts longer than a step's budget, and a pool that must preempt.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from batchgen.core.rows import Generation
from batchgen.engine.engine import Engine
from tests.support.reference import expected_beams, generate
from tests.support.tiny_models import FAMILIES
from tests.unit.engine.conftest import Models, hurried, make_engine, request, run, tokens_of

REFUSED = {"falcon", "bloom", "mpt", "gptj", "codegen", "llama4_text", "qwen3_next", "lfm2"}
SERVED = [family for family in FAMILIES if family not in REFUSED]
TIE = 1e-4  # logit or score gap below which two tokens or answers count as equally likely
MAX_TOKENS = 20
BEAMS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 4, "length_penalty": 0.7},
    {"num_beams": 3, "early_stopping": True},
]


def prompts(count: int, *, longest: int) -> list[list[int]]:
    rng = random.Random(longest)  # noqa: S311
    return [[rng.randrange(3, 300) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(path, dtype=torch.float32).eval()


def greedy(network: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Return transformers' greedy tokens, and the gap of the two best logits at each of them."""
    out = generate(network, prompt, max_new_tokens=MAX_TOKENS, output_logits=True)
    best = [logits[0].topk(2).values for logits in out.logits]
    return out.sequences[0, len(prompt) :].tolist(), [float(two[0] - two[1]) for two in best]


def same_but_for_ties(got: list[int], expected: list[int], gaps: list[float]) -> bool:
    for mine, theirs, gap in zip(got, expected, gaps, strict=False):
        if mine != theirs:
            return gap < TIE
    return len(got) == len(expected)


def check_beams(answer: Generation, expected: list[tuple[list[int], float]]) -> None:
    scores = [choice.score for choice in answer.choices]
    assert scores == pytest.approx([score for _, score in expected], abs=TIE)
    ranks = zip(answer.choices, expected, strict=True)
    for rank, (choice, (tokens, score)) in enumerate(ranks):
        others = [abs(score - other) for i, (_, other) in enumerate(expected) if i != rank]
        assert choice.tokens == tokens or min(others) < TIE


@pytest.mark.parametrize("family", SERVED)
def test_answers_are_those_of_transformers(models: Models, family: str) -> None:
    path = models(family)
    engine: Engine = hurried(make_engine(path, blocks=30, max_batch_tokens=24))
    plain, searched = prompts(6, longest=60), prompts(len(BEAMS), longest=24)
    asked = [request(key, row, max_tokens=MAX_TOKENS) for key, row in enumerate(plain)]
    asked += [
        request(100 + i, row, max_tokens=MAX_TOKENS, n=options["num_beams"], **options)
        for i, (row, options) in enumerate(zip(searched, BEAMS, strict=True))
    ]
    ended = run(engine, *asked)
    network = load(path)
    for key, row in enumerate(plain):
        expected, gaps = greedy(network, row)
        assert same_but_for_ties(tokens_of(ended[key]), expected, gaps), key
    for i, (row, options) in enumerate(zip(searched, BEAMS, strict=True)):
        width = options["num_beams"]
        found = expected_beams(
            network, row, max_new_tokens=MAX_TOKENS, num_return_sequences=width, **options
        )
        check_beams(ended[100 + i], found)
    # What leaves a window is free at once, so such a model may get by with what there is.
    assert engine.stats().preemptions > 0 or engine.scheduler.window is not None

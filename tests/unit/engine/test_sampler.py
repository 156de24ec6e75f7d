"""Sampling by its distribution, and what each cut keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from batchgen.engine.sampler import Drawn, Rows, draw

LOGITS = torch.log(torch.tensor([0.40, 0.25, 0.15, 0.10, 0.06, 0.04]))


def rows(
    count: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
) -> Rows:
    return Rows(
        temperature=np.full(count, temperature, dtype=np.float32),
        top_k=np.full(count, top_k, dtype=np.int64),
        top_p=np.full(count, top_p, dtype=np.float64),
        seed=np.full(count, seed, dtype=np.uint64),
        sequence=np.zeros(count, dtype=np.uint64),
        position=np.arange(count, dtype=np.uint64),
    )


def frequencies(
    logits: Tensor, *, count: int = 4000, temperature: float = 1.0, top_k: int = 0, top_p: float = 1
) -> list[float]:
    how = rows(count, temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = draw(logits.expand(count, -1).contiguous(), how)
    found = np.bincount(drawn.tokens, minlength=len(logits))
    return [float(share) for share in found / count]


def assert_distribution(found: list[float], expected: list[float], *, count: int = 4000) -> None:
    """Chi-square, five standard deviations; what has probability 0 must not occur at all."""
    chi_square, degrees = 0.0, -1
    for share, probability in zip(found, expected, strict=True):
        if probability == 0.0:
            assert share == 0.0
        else:
            chi_square += count * (share - probability) ** 2 / probability
            degrees += 1
    assert chi_square < degrees + 5 * math.sqrt(2 * max(degrees, 1))


def normalised(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def test_temperature_zero_takes_the_best() -> None:
    logits = torch.randn(7, 50)
    drawn = draw(logits, rows(7, temperature=0.0, top_k=3, top_p=0.1))
    assert drawn.tokens.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature(temperature: float) -> None:
    expected = normalised([math.exp(float(x) / temperature) for x in LOGITS])
    assert_distribution(frequencies(LOGITS, temperature=temperature), expected)


def test_top_k() -> None:
    expected = normalised([0.40, 0.25, 0.15, 0, 0, 0])
    assert_distribution(frequencies(LOGITS, top_k=3), expected)
    assert frequencies(LOGITS, top_k=1)[0] == 1.0
    assert_distribution(frequencies(LOGITS, top_k=99), normalised(LOGITS.exp().tolist()))


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    expected = normalised([0.40, 0.25, 0.15, 0, 0, 0])
    assert_distribution(frequencies(LOGITS, top_p=0.7), expected)
    assert frequencies(LOGITS, top_p=1e-9)[0] == 1.0


def test_top_p_counts_within_what_top_k_kept() -> None:
    # Of the four kept by top_k (0.90 together) two make 0.72.
    expected = normalised([0.40, 0.25, 0, 0, 0, 0])
    assert_distribution(frequencies(LOGITS, top_k=4, top_p=0.7), expected)


def test_top_p_comes_after_temperature() -> None:
    expected = normalised([0.40**2, 0.25**2, 0, 0, 0, 0])
    found = frequencies(LOGITS, temperature=0.5, top_p=0.75)
    assert_distribution(found, expected)


def test_equally_likely_tokens_stay_together() -> None:
    found = frequencies(torch.zeros(6), top_k=2)
    assert_distribution(found, [1 / 6] * 6)


@pytest.mark.parametrize("top_p", [0.5, 0.97])
def test_a_flat_distribution_needs_more_than_the_first_candidates(top_p: float) -> None:
    vocabulary = 9000
    logits = torch.linspace(1e-3, 0, vocabulary)
    tokens = draw(logits.expand(500, -1).contiguous(), rows(500, top_p=top_p)).tokens
    assert tokens.max() < top_p * vocabulary + 5
    assert tokens.max() > top_p * vocabulary * 0.9


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(40, 1000, generator=generator)
    how = replace(
        rows(40),
        temperature=np.resize(np.array([0.0, 0.7, 1.0, 1.5], dtype=np.float32), 40),
        top_k=np.resize(np.array([0, 5, 300]), 40),
        top_p=np.resize(np.array([1.0, 0.9, 0.5, 0.99, 0.2]), 40),
        seed=np.arange(40, dtype=np.uint64),
    )
    together = draw(logits, how)
    for i in range(40):
        fields = {name: getattr(how, name)[i : i + 1] for name in Rows.__slots__}
        alone = draw(logits[i : i + 1], Rows(**fields))
        assert alone.tokens[0] == together.tokens[i]
        assert alone.logprobs[0] == pytest.approx(together.logprobs[i], abs=1e-5)


def test_log_probabilities_are_the_models_own() -> None:
    drawn = draw(LOGITS.expand(50, -1).contiguous() + 7, rows(50, temperature=0.3, top_k=2))
    assert drawn.logprobs == pytest.approx(LOGITS[drawn.tokens].numpy(), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_no_numbers_are_reported_for_their_row_alone(poison: float, temperature: float) -> None:
    logits = torch.zeros(3, 6)
    logits[1, 2] = poison
    drawn: Drawn = draw(logits, rows(3, temperature=temperature, top_k=2, top_p=0.5))
    assert drawn.valid.tolist() == [True, False, True]


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = LOGITS.clone()
    logits[0] = -math.inf
    assert frequencies(logits)[0] == 0.0
    assert draw(logits[None], rows(1)).valid.all()


def test_a_very_small_temperature_is_greedy() -> None:
    assert frequencies(LOGITS, temperature=1e-30)[0] == 1.0


def test_no_rows_draw_nothing() -> None:
    assert draw(torch.empty(0, 6), rows(0)).tokens.shape == (0,)

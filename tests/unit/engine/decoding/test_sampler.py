"""Sampling by its distribution, what each cut keeps, and what a draw depends on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.logprobs import TopTokens
from batchgen.engine.decoding.sampler import Draw, Drawn, draw
from batchgen.engine.scheduling.sequence import Sequence

SHARES = [0.40, 0.25, 0.15, 0.10, 0.06, 0.04]
LOGITS = torch.log(torch.tensor(SHARES))
COUNT = 4000
MIXED: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 5},
    {"top_p": 0.9},
    {"temperature": 1.5, "top_k": 300, "top_p": 0.5},
    {"min_p": 0.1, "top_p": 0.99},
    {"temperature": 0.0, "repetition_penalty": 1.3, "logprobs": True, "top_logprobs": 3},
    {"logit_bias": {7: 4.0}, "frequency_penalty": 0.5},
]


def one(row: int, *, seed: int = 0, index: int = 0, position: int = 1, **params: Any) -> Draw:
    """Return a draw from logits row `row`, after `position` tokens."""
    tokens = [i % 6 for i in range(position)]
    return Draw(
        row=row,
        sequence=Sequence(key=0, index=index, tokens=tokens, num_prompt=min(1, position)),
        params=SamplingParams(**params),
        seed=seed,
        grammar=None,
        ends=frozenset({5}),
    )


def many(count: int, **params: Any) -> list[Draw]:
    """Return the draws of so many samples from one row."""
    return [one(0, index=index, **params) for index in range(count)]


def frequencies(logits: Tensor, **params: Any) -> list[float]:
    drawn = draw(logits[None], many(COUNT, **params))
    found = np.bincount(drawn.tokens, minlength=len(logits))
    return [float(share) for share in found / COUNT]


def warped(logits: Tensor, **cuts: Any) -> Tensor:
    """Return what transformers makes of `logits` [V], in our order."""
    kinds: dict[str, Any] = {
        "temperature": TemperatureLogitsWarper,
        "min_p": MinPLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
    }
    scores = logits[None]
    for name, kind in kinds.items():
        if name in cuts:
            scores = kind(cuts[name])(None, scores)
    return scores[0]


def assert_distribution(found: list[float], weights: list[float]) -> None:
    """Chi-square, five standard deviations; what has probability 0 must not occur at all."""
    chi_square, degrees = 0.0, -1
    for share, weight in zip(found, weights, strict=True):
        probability = weight / sum(weights)
        if probability == 0.0:
            assert share == 0.0
        else:
            chi_square += COUNT * (share - probability) ** 2 / probability
            degrees += 1
    assert chi_square < degrees + 5 * math.sqrt(2 * max(degrees, 1))


class TestDistribution:
    def test_temperature_zero_takes_the_best(self) -> None:
        logits = torch.randn(7, 50)
        cuts: dict[str, Any] = {"top_k": 3, "top_p": 0.1, "min_p": 0.5}
        drawn = draw(logits, [one(row, temperature=0.0, **cuts) for row in range(7)])
        assert drawn.tokens.tolist() == logits.argmax(-1).tolist()

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_temperature(self, temperature: float) -> None:
        found = frequencies(LOGITS, temperature=temperature)
        assert_distribution(found, [share ** (1 / temperature) for share in SHARES])

    def test_top_k(self) -> None:
        assert_distribution(frequencies(LOGITS, top_k=3), [0.40, 0.25, 0.15, 0, 0, 0])
        assert frequencies(LOGITS, top_k=1)[0] == 1.0
        assert_distribution(frequencies(LOGITS, top_k=99), SHARES)

    def test_top_p_keeps_the_token_that_crosses_it(self) -> None:
        assert_distribution(frequencies(LOGITS, top_p=0.7), [0.40, 0.25, 0.15, 0, 0, 0])
        assert frequencies(LOGITS, top_p=1e-9)[0] == 1.0

    def test_top_p_counts_within_what_top_k_kept(self) -> None:
        # Of the four kept by top_k (0.90 together) two make 0.72.
        assert_distribution(frequencies(LOGITS, top_k=4, top_p=0.7), [0.40, 0.25, 0, 0, 0, 0])

    def test_top_p_comes_after_temperature(self) -> None:
        found = frequencies(LOGITS, temperature=0.5, top_p=0.75)
        assert_distribution(found, [0.40**2, 0.25**2, 0, 0, 0, 0])

    def test_min_p_is_a_share_of_the_best(self) -> None:
        assert_distribution(frequencies(LOGITS, min_p=0.2), [0.40, 0.25, 0.15, 0.10, 0, 0])
        assert frequencies(LOGITS, min_p=1.0)[0] == 1.0
        assert_distribution(frequencies(LOGITS, min_p=0.0), SHARES)

    def test_min_p_comes_after_temperature(self) -> None:
        # (0.25 / 0.40) ** 2 is 0.39, (0.15 / 0.40) ** 2 is 0.14.
        found = frequencies(LOGITS, temperature=0.5, min_p=0.2)
        assert_distribution(found, [0.40**2, 0.25**2, 0, 0, 0, 0])

    def test_top_p_counts_within_what_min_p_kept(self) -> None:
        # Of the three kept by min_p (0.80 together) two make 0.81; of all they make 0.65.
        found = frequencies(LOGITS, min_p=0.3, top_p=0.7)
        assert_distribution(found, [0.40, 0.25, 0, 0, 0, 0])

    @pytest.mark.parametrize(
        "cuts",
        [
            {"temperature": 0.7},
            {"temperature": 1.3, "top_k": 9},
            {"top_p": 0.8},
            {"min_p": 0.1},
            {"temperature": 1.5, "min_p": 0.08, "top_k": 12, "top_p": 0.85},
            {"temperature": 2.0, "min_p": 0.3, "top_k": 5, "top_p": 0.5},
        ],
        ids=str,
    )
    def test_it_is_that_of_transformers(self, cuts: dict[str, Any]) -> None:
        logits = 2 * torch.randn(25, generator=torch.Generator().manual_seed(4))
        found = frequencies(logits, **cuts)
        assert_distribution(found, warped(logits, **cuts).softmax(-1).tolist())

    def test_equally_likely_tokens_stay_together(self) -> None:
        assert_distribution(frequencies(torch.zeros(6), top_k=2), [1.0] * 6)

    def test_what_is_sampled_is_what_the_processing_left(self) -> None:
        found = frequencies(LOGITS, allowed_token_ids=(1, 3, 4), logit_bias={4: math.log(2)})
        assert_distribution(found, [0, 0.25, 0, 0.10, 0.12, 0])

    @pytest.mark.parametrize("top_p", [0.5, 0.97])
    def test_a_flat_distribution_needs_more_than_the_first_candidates(self, top_p: float) -> None:
        vocabulary = 9000
        tokens = draw(torch.linspace(1e-3, 0, vocabulary)[None], many(500, top_p=top_p)).tokens
        assert tokens.max() < top_p * vocabulary + 5
        assert tokens.max() > top_p * vocabulary * 0.9

    def test_tokens_of_probability_zero_are_never_drawn(self) -> None:
        logits = LOGITS.clone()
        logits[0] = -math.inf
        assert frequencies(logits)[0] == 0.0

    @pytest.mark.parametrize("temperature", [1e-30, 1e-46, 1e-300])
    def test_a_very_small_temperature_is_greedy(self, temperature: float) -> None:
        assert frequencies(LOGITS, temperature=temperature)[0] == 1.0


class TestIndependence:
    """A draw is a function of its logits, its parameters, and (seed, sequence, position)."""

    def test_rows_of_a_batch_do_not_see_each_other(self) -> None:
        logits = 3 * torch.randn(42, 1000, generator=torch.Generator().manual_seed(1))
        draws = [one(i, seed=i, position=3 + i, **MIXED[i % len(MIXED)]) for i in range(42)]
        before = logits.clone()
        together = draw(logits, draws)
        assert torch.equal(logits, before)
        backwards = draw(logits, draws[::-1])
        assert backwards.tokens[::-1].tolist() == together.tokens.tolist()
        for i, each in enumerate(draws):
            alone = draw(logits[i : i + 1], [replace(each, row=0)])
            assert alone.tokens[0] == together.tokens[i]
            assert alone.logprobs[0] == pytest.approx(together.logprobs[i], abs=1e-5)
            assert (0 in alone.top) == (i in together.top) == (each.params.top_logprobs > 0)

    def test_draws_may_share_a_row_and_leave_it_as_it_is(self) -> None:
        logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(2))
        before = logits.clone()
        shared = [one(1, index=i, temperature=2.0, **MIXED[-1]) for i in range(20)]
        drawn = draw(logits, [one(0, temperature=0.0), *shared, one(1, temperature=0.0)])
        assert torch.equal(logits, before)
        assert drawn.tokens[0] == logits[0].argmax() and drawn.tokens[-1] == logits[1].argmax()
        assert len(set(drawn.tokens[1:-1].tolist())) > 5

    @pytest.mark.parametrize("field", ["seed", "index", "position"])
    def test_each_of_its_numbers_selects_another_draw(self, field: str) -> None:
        logits = torch.zeros(1, 5000)
        drawn = draw(logits, [one(0, **{field: value}) for value in range(1, 9)])
        assert len(set(drawn.tokens.tolist())) == 8

    def test_seeds_are_stable(self) -> None:
        # These are what earlier versions drew: a job resumed by a newer one must go on alike.
        logits = torch.zeros(1, 1000)
        seeds = (0, 1, 2**64 - 1)
        drawn = draw(logits, [one(0, seed=seed, position=3) for seed in seeds])
        assert drawn.tokens.tolist() == [902, 806, 503]

    def test_rows_that_nobody_draws_from_are_left_out(self) -> None:
        logits = torch.randn(4, 10)
        drawn = draw(logits, [one(2, temperature=0.0), one(0, temperature=0.0)])
        assert drawn.tokens.tolist() == [int(logits[2].argmax()), int(logits[0].argmax())]

    def test_the_work_is_done_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logits = torch.randn(9, 40, generator=torch.Generator().manual_seed(4))
        draws = [one(i, seed=i, **MIXED[i % len(MIXED)]) for i in range(9)]
        whole = draw(logits, draws)
        monkeypatch.setattr("batchgen.engine.decoding.sampler.WORK", 39)
        assert draw(logits, draws).tokens.tolist() == whole.tokens.tolist()

    def test_no_draws_draw_nothing(self) -> None:
        assert draw(torch.empty(0, 6), []).tokens.shape == (0,)
        assert draw(torch.zeros(2, 6), []).tokens.shape == (0,)


class TestLogprobs:
    def test_they_are_the_models_own(self) -> None:
        drawn = draw(LOGITS[None] + 7, many(50, temperature=0.3, top_k=2, logit_bias={1: 0.4}))
        assert drawn.logprobs == pytest.approx(LOGITS[drawn.tokens].numpy(), abs=1e-5)
        assert set(drawn.tokens.tolist()) == {0, 1}

    def test_alternatives_are_ranked_by_the_models_own_distribution(self) -> None:
        draws = [
            one(0, temperature=0.0, logprobs=True, top_logprobs=2, logit_bias={3: 50.0}),
            one(0, temperature=0.0),
            one(0, temperature=0.0, logprobs=True, top_logprobs=6),
            one(0, temperature=0.0, logprobs=True),
        ]
        drawn = draw(LOGITS[None], draws)
        assert drawn.tokens.tolist() == [3, 0, 0, 0]
        assert set(drawn.top) == {0, 2}
        assert drawn.top[0].ids == [0, 1]
        assert drawn.top[2].ids == [0, 1, 2, 3, 4, 5]
        assert drawn.top[2].logprobs == pytest.approx(LOGITS.tolist(), abs=1e-6)

    def test_a_token_has_one_log_probability_wherever_it_is_shown(self) -> None:
        logits = 5 * torch.randn(30, 700, generator=torch.Generator().manual_seed(3))
        draws = [one(i, temperature=0.0, logprobs=True, top_logprobs=1) for i in range(30)]
        drawn = draw(logits, draws)
        expected = [
            TopTokens(ids=[token], logprobs=[value])
            for token, value in zip(drawn.tokens.tolist(), drawn.logprobs.tolist(), strict=True)
        ]
        assert [drawn.top[i] for i in range(30)] == expected


class TestInvalidRows:
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    @pytest.mark.parametrize("bias", [{}, {0: 1.0}])
    def test_no_numbers_are_reported_for_their_row_alone(
        self, poison: float, temperature: float, bias: dict[int, float]
    ) -> None:
        logits = torch.zeros(3, 6)
        logits[1, 2] = poison
        how: dict[str, Any] = {"temperature": temperature, "top_k": 2, "top_p": 0.5}
        how["logit_bias"] = bias
        drawn: Drawn = draw(logits, [one(row, **how) for row in range(3)])
        assert drawn.valid.tolist() == [True, False, True]
        assert not drawn.stuck.any()

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_a_row_in_which_nothing_is_allowed_is_stuck_alone(self, temperature: float) -> None:
        free = one(0, temperature=temperature)
        stuck = one(0, temperature=temperature, allowed_token_ids=(5,), min_tokens=9)
        drawn = draw(torch.zeros(1, 6), [free, stuck, free])
        assert drawn.stuck.tolist() == [False, True, False]
        assert drawn.valid.tolist() == [True, False, True]

    def test_what_the_model_excludes_and_the_parameters_demand_is_stuck(self) -> None:
        logits = torch.zeros(1, 6)
        logits[0, 4] = -math.inf
        drawn = draw(logits, [one(0, allowed_token_ids=(4,)), one(0, allowed_token_ids=(3,))])
        assert drawn.stuck.tolist() == [True, False]
        assert drawn.tokens[1] == 3

    def test_no_numbers_come_before_nothing_allowed(self) -> None:
        logits = torch.full((1, 6), math.nan)
        drawn = draw(logits, [one(0, allowed_token_ids=(5,), min_tokens=9)])
        assert not drawn.valid[0] and not drawn.stuck[0]

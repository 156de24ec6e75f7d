"""Each parameter's effect on the scores, against transformers or plain arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.processors import Context, needs_processing, process

VOCABULARY = 40
PROMPT = [3, 4, 4, 9]
ANSWER = [7, 3, 7, 7]
NEVER = -math.inf


def context(
    answer: list[int] = ANSWER, *, ends: frozenset[int] = frozenset({0, 2}), **params: Any
) -> Context:
    return Context(
        params=SamplingParams(**params),
        tokens=PROMPT + answer,
        num_prompt=len(PROMPT),
        ends=ends,
        grammar=None,
    )


def random_scores(rows: int = 1, *, seed: int = 0) -> Tensor:
    return 4 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def processed(scores: Tensor, *contexts: Context) -> Tensor:
    result = scores.clone()
    process(result, contexts)
    return result


def changed(before: Tensor, after: Tensor) -> list[int]:
    """Return the tokens whose score is another one."""
    return sorted({token for _, token in (before != after).nonzero().tolist()})


@pytest.mark.parametrize("penalty", [0.5, 1.2, 2.0])
@pytest.mark.parametrize("normalise", [False, True], ids=["logits", "log-probabilities"])
def test_repetition_penalty_is_that_of_transformers(penalty: float, normalise: bool) -> None:
    scores = random_scores()
    if normalise:
        scores = scores.log_softmax(-1)
    oracle: Any = RepetitionPenaltyLogitsProcessor(penalty)
    expected = oracle(torch.tensor([PROMPT + ANSWER]), scores.clone())
    got = processed(scores, context(repetition_penalty=penalty))
    assert torch.equal(got, expected)
    assert changed(scores, got) == sorted({*PROMPT, *ANSWER})


def test_presence_penalty_is_taken_once_for_tokens_of_the_answer() -> None:
    scores = random_scores()
    got = processed(scores, context(presence_penalty=0.75))
    assert changed(scores, got) == [3, 7]
    assert (scores - got)[0, [3, 7]].tolist() == pytest.approx([0.75, 0.75], abs=1e-5)


def test_frequency_penalty_is_taken_for_each_time() -> None:
    scores = random_scores()
    got = processed(scores, context(frequency_penalty=-0.5, presence_penalty=0.1))
    assert changed(scores, got) == [3, 7]
    assert (scores - got)[0, [3, 7]].tolist() == pytest.approx([-0.4, -1.4], abs=1e-5)


def test_an_empty_answer_has_nothing_to_be_penalised_for() -> None:
    scores = random_scores()
    got = processed(scores, context([], presence_penalty=1.0, frequency_penalty=1.0))
    assert torch.equal(got, scores)


def test_logit_bias_is_added() -> None:
    scores = random_scores()
    got = processed(scores, context(logit_bias={5: 2.5, 39: -100.0}))
    expected = scores.clone()
    expected[0, 5] += 2.5
    expected[0, 39] -= 100
    assert torch.equal(got, expected)


def test_only_allowed_tokens_stay() -> None:
    scores = random_scores()
    got = processed(scores, context(allowed_token_ids=(8, 1, 8)))
    expected = torch.full_like(scores, NEVER)
    expected[0, [1, 8]] = scores[0, [1, 8]]
    assert torch.equal(got, expected)


def test_min_tokens_is_that_of_transformers() -> None:
    for generated in range(5):
        scores = random_scores()
        oracle: Any = MinNewTokensLengthLogitsProcessor(len(PROMPT), 3, [0, 2])
        ids = torch.tensor([PROMPT + ANSWER[:generated]])
        got = processed(scores, context(ANSWER[:generated], min_tokens=3))
        assert torch.equal(got, oracle(ids, scores.clone())), generated
        assert math.isinf(got[0, 2]) == (generated < 3)


def test_min_tokens_forbids_nothing_where_nothing_ends_an_answer() -> None:
    scores = random_scores()
    assert torch.equal(processed(scores, context([], min_tokens=3, ends=frozenset())), scores)


def test_an_end_token_that_the_model_does_not_have_is_passed_over() -> None:
    scores = random_scores()
    got = processed(scores, context([], min_tokens=3, ends=frozenset({2, VOCABULARY + 5})))
    assert changed(scores, got) == [2]


def test_a_bias_counts_after_the_penalties_and_before_the_masks() -> None:
    scores = torch.ones(1, VOCABULARY)
    got = processed(
        scores,
        context(
            [7],
            repetition_penalty=2.0,
            presence_penalty=0.25,
            logit_bias={7: 10.0, 2: 100.0, 20: 100.0},
            allowed_token_ids=(7, 2),
            min_tokens=5,
        ),
    )
    assert got[0, 7] == 1 / 2 - 0.25 + 10
    assert got[0, 2] == NEVER and got[0, 20] == NEVER


EVERYTHING = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.3]),
        "presence_penalty": st.sampled_from([-1.0, 0.0, 0.5]),
        "frequency_penalty": st.sampled_from([-0.5, 0.0, 1.5]),
        "logit_bias": st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-5, 5), max_size=4),
        "allowed_token_ids": st.lists(st.integers(0, VOCABULARY - 1), max_size=6).map(tuple),
        "min_tokens": st.integers(0, 6),
    },
)
ANSWERS = st.lists(st.integers(0, VOCABULARY - 1), max_size=6)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(ANSWERS, EVERYTHING), min_size=1, max_size=5))
def test_rows_do_not_see_each_other_and_untouched_rows_say_so(
    rows: list[tuple[list[int], dict[str, Any]]],
) -> None:
    scores = random_scores(len(rows), seed=len(rows))
    contexts = [context(answer, **params) for answer, params in rows]
    together = processed(scores, *contexts)
    for i, each in enumerate(contexts):
        assert torch.equal(processed(scores[i : i + 1], each)[0], together[i])
        if not needs_processing(each.params, None, num_generated=each.num_generated):
            assert torch.equal(together[i], scores[i])


@pytest.mark.parametrize(
    "params",
    [
        {"repetition_penalty": 1.1},
        {"presence_penalty": -0.1},
        {"frequency_penalty": 0.1},
        {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": (1,)},
        {"min_tokens": 1},
    ],
)
def test_every_parameter_that_changes_scores_is_seen(params: dict[str, Any]) -> None:
    assert needs_processing(SamplingParams(**params), None)
    assert not needs_processing(SamplingParams(top_k=3, top_p=0.5, min_p=0.1), None)


def test_enough_tokens_need_no_processing_any_more() -> None:
    params = SamplingParams(min_tokens=4)
    assert needs_processing(params, None, num_generated=3)
    assert not needs_processing(params, None, num_generated=4)

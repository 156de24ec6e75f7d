from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.params import SamplingParams
from batchgen.core.rows import RowError
from batchgen.engine.limits import Limits
from batchgen.engine.scheduling.sequence import SequenceGroup
from tests.support.scheduling import World, make_scheduler

VOCABULARY = 100


def make_limits(
    *, context: int = 50, blocks: int = 20, width: int = 8, block_size: int = 4
) -> Limits:
    return Limits(
        context=context, blocks=blocks, block_size=block_size, vocabulary=VOCABULARY, width=width
    )


def make_group(prompt: int | list[int], max_tokens: int | None = 5, **params: Any) -> SequenceGroup:
    tokens = prompt if isinstance(prompt, list) else [7] * prompt
    sampling = SamplingParams(max_tokens=max_tokens, **params)
    return SequenceGroup.of_prompt(1, tokens, sampling, max_tokens=max_tokens or 0)


def refusal(limits: Limits, group: SequenceGroup, *, param: str = "messages") -> RowError:
    error = limits.check(group, param=param)
    assert error is not None
    return error


def test_a_row_within_all_limits_is_not_refused() -> None:
    assert make_limits().check(make_group(45, 5), param="prompt") is None


def test_an_empty_prompt_is_refused() -> None:
    error = refusal(make_limits(), make_group(0), param="prompt")
    assert (error.code, error.param) == ("empty_prompt", "prompt")


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
@pytest.mark.parametrize("field", ["prompt", "logit_bias", "allowed_token_ids", "stop_token_ids"])
def test_token_ids_that_the_model_cannot_read_are_refused(field: str, wrong: int) -> None:
    cases: dict[str, dict[str, Any]] = {
        "prompt": {},
        "logit_bias": {"logit_bias": {3: 1.0, wrong: 1.0}},
        "allowed_token_ids": {"allowed_token_ids": (3, wrong)},
        "stop_token_ids": {"stop_token_ids": (0, VOCABULARY - 1, wrong)},
    }
    prompt = [0, wrong, VOCABULARY - 1] if field == "prompt" else [0, VOCABULARY - 1]
    error = refusal(make_limits(), make_group(prompt, **cases[field]), param="prompt")
    assert (error.code, error.param) == ("invalid_value", field)
    assert str(VOCABULARY - 1) in error.message


@pytest.mark.parametrize("field", ["n", "num_beams"])
def test_more_sequences_than_a_step_has_are_refused(field: str) -> None:
    params: dict[str, Any] = {field: 9}
    error = refusal(make_limits(), make_group(4, **params))
    assert (error.code, error.param) == ("invalid_value", field)
    assert "9" in error.message and "8 sequences" in error.message


def test_an_answer_past_the_context_is_refused_in_openais_words() -> None:
    error = refusal(make_limits(), make_group(46, 5))
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert error.message == (
        "This model's maximum context length is 50 tokens. However, this row needs 51 tokens: "
        "46 in the prompt, 5 in the answer."
    )


def test_answers_that_the_pool_cannot_hold_together_are_refused() -> None:
    limits = make_limits(blocks=12)
    assert limits.check(make_group(8, 17, n=2), param="prompt") is None
    error = refusal(limits, make_group(8, 34, n=2))
    assert error.code == "context_length_exceeded"
    assert "48 tokens of one row" in error.message and "--kv-memory" in error.message
    assert "34 in each of 2 answers" in error.message


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    error = refusal(make_limits(), make_group(50, None))
    assert "50 in the prompt, at least 1 in the answer" in error.message


def test_the_length_of_a_row_is_that_of_the_context_or_of_the_pool() -> None:
    assert make_limits(context=50, blocks=20).length == 50
    assert make_limits(context=50, blocks=10).length == 40


@given(
    prompt=st.integers(1, 40),
    max_tokens=st.none() | st.integers(1, 40),
    width=st.integers(1, 5),
    beams=st.booleans(),
    context=st.integers(2, 50),
    blocks=st.integers(1, 30),
    block_size=st.sampled_from([1, 3, 4, 16]),
)
def test_what_passes_always_fits_and_an_open_answer_is_as_long_as_can_be(
    prompt: int,
    max_tokens: int | None,
    width: int,
    beams: bool,
    context: int,
    blocks: int,
    block_size: int,
) -> None:
    limits = make_limits(context=context, blocks=blocks, width=4, block_size=block_size)
    world = World(blocks=blocks, block_size=block_size, max_num_seqs=4)
    scheduler = make_scheduler(world)
    params: dict[str, Any] = {"num_beams" if beams else "n": width}
    group = make_group(prompt, max_tokens, **params)
    passes = limits.check(group, param="prompt") is None
    if passes:
        assert group.max_tokens >= 1
        assert prompt + group.max_tokens <= context
        assert scheduler.can_ever_fit(group)
        if max_tokens is None:
            group.max_tokens += 1
            in_context = prompt + group.max_tokens <= context
            assert not (in_context and scheduler.can_ever_fit(group)), "there is room for more"
    else:
        group.max_tokens = max_tokens or 1
        in_context = prompt + group.max_tokens <= context
        assert not (in_context and scheduler.can_ever_fit(group)), "it would have fitted"

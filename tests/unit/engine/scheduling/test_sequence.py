from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.sequence import (
    TRANSITIONS,
    GroupState,
    SequenceGroup,
    common_length,
)


@dataclass
class Notes:
    """A companion."""

    words: list[str] = field(default_factory=list)

    def fork(self) -> Notes:
        return Notes(self.words.copy())


def make_group(
    prompt: list[int] | None = None, *, max_tokens: int = 9, **params: int
) -> SequenceGroup:
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    return SequenceGroup.of_prompt(1, prompt or [1, 2, 3, 4], sampling, max_tokens=max_tokens)


def answers(group: SequenceGroup, *texts: list[int]) -> None:
    """Let `group` have come so far, everything computed but the last tokens."""
    prompt = group.sequences[0]
    group.sequences = [prompt.fork(index) for index in range(len(texts))]
    for sequence, tokens in zip(group.sequences, texts, strict=True):
        for token in tokens:
            sequence.append(token, -0.5)
        sequence.num_computed = sequence.num_tokens - 1


def test_states_change_along_the_table_only() -> None:
    for state, allowed in TRANSITIONS.items():
        for target in GroupState:
            group = make_group()
            group.state = state
            if target in allowed:
                group.move_to(target)
                assert group.state is target
            else:
                with pytest.raises(AssertionError):
                    group.move_to(target)


def test_a_new_group_is_its_prompt() -> None:
    group = make_group(n=3)
    (only,) = group.sequences
    assert (only.num_tokens, only.num_generated, only.pending) == (4, 0, 4)
    assert (group.width, group.slots, group.is_prompt) == (3, 3, True)
    assert group.peak_tokens == 4 + 9 - 1


def test_a_fork_grows_on_its_own() -> None:
    parent = make_group().sequences[0]
    parent.append(5, -1.0)
    parent.num_computed, parent.table_row, parent.companion = 4, 7, Notes(["a"])
    parent.keys.append(b"key")
    child = parent.fork(1)
    child.append(6, -2.0)
    child.keys.append(b"more")
    assert isinstance(child.companion, Notes)
    child.companion.words.append("b")
    assert (parent.generated, child.generated) == ([5], [5, 6])
    assert (parent.score, child.score) == (-1.0, -3.0)
    assert (parent.keys, parent.companion) == ([b"key"], Notes(["a"]))
    assert (child.index, child.num_computed, child.table_row) == (1, 4, -1)


def test_samples_that_ended_need_no_place_any_more() -> None:
    group = make_group(n=3)
    answers(group, [5], [6], [7])
    group.sequences[1].finish_reason = "stop"
    assert group.slots == 2
    assert group.computing == group.unfinished == [group.sequences[0], group.sequences[2]]


def test_beams_that_became_fewer_keep_their_places() -> None:
    # One candidate only while a grammar forces what comes; after it there are many again.
    group = make_group(num_beams=4)
    answers(group, [5])
    assert group.slots == 4


def test_what_all_answers_share_is_computed_again_once() -> None:
    group = make_group(n=3)
    answers(group, [5, 6, 7], [5, 6, 8, 9], [5, 6, 7, 7])
    group.forget_computed()
    assert group.shared_tokens == 4 + 2
    assert group.computing == group.sequences[:1]
    assert group.goal(group.sequences[0]) == 6
    assert [sequence.num_computed for sequence in group.sequences] == [0, 0, 0]
    assert group.slots == 3


def test_answers_that_are_equal_keep_their_last_tokens_to_draw_from() -> None:
    group = make_group(n=2)
    answers(group, [5, 6], [5, 6])
    group.forget_computed()
    assert group.shared_tokens == 4 + 1
    longer = make_group(n=2)
    answers(longer, [5, 6], [5, 6, 7])
    longer.forget_computed()
    assert longer.shared_tokens == 4 + 1


def test_an_ended_answer_is_not_computed_again() -> None:
    group = make_group(n=3)
    answers(group, [8], [5, 6], [5, 7])
    group.sequences[0].finish_reason = "stop"
    group.forget_computed()
    assert group.shared_tokens == 4 + 1
    assert group.computing == [group.sequences[1]]
    assert group.sequences[0].num_computed == 4


def test_a_single_answer_is_computed_again_to_its_end() -> None:
    group = make_group()
    answers(group, [5, 6])
    group.forget_computed()
    assert group.shared_tokens is None
    assert group.goal(group.sequences[0]) == 6


@pytest.mark.parametrize(("computed", "wants"), [(0, True), (2, True), (3, False)])
def test_prompt_tokens_are_judged_until_the_last(computed: int, wants: bool) -> None:
    group = make_group(prompt_logprobs=0)
    group.sequences[0].num_computed = computed
    assert group.wants_prompt_logprobs is wants
    silent = make_group()
    silent.sequences[0].num_computed = computed
    assert not silent.wants_prompt_logprobs


def test_common_length() -> None:
    assert common_length([[1, 2, 3]]) == 3
    assert common_length([[1, 2, 3], [1, 2]]) == 2
    assert common_length([[1, 2, 3], [1, 4, 3], [1, 2, 3]]) == 1
    assert common_length([[], [1]]) == 0

"""The scheduler without a model: what a step contains, who comes in, what is found again.

Every `Life` also checks that each sequence reads its own history: see `tests.support.scheduling`.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.scheduler import PROMPT_ROWS
from batchgen.engine.scheduling.sequence import GroupState
from tests.support.scheduling import Life, add, ends, keys, make_life, until_preempted


def used(life: Life) -> int:
    return life.scheduler.pool.num_used


# What a step contains.


def test_a_long_prompt_is_computed_in_chunks_and_draws_after_the_last() -> None:
    life = make_life(max_batch_tokens=10)
    add(life, prompt=23, max_tokens=2)
    plans = [life.step() for _ in range(3)]
    assert [plan.counts.tolist() for plan in plans] == [[10], [10], [3]]
    assert [plan.starts.tolist() for plan in plans] == [[0], [10], [20]]
    assert [len(plan.drawing) for plan in plans] == [0, 0, 1]


def test_decode_and_prefill_share_a_step() -> None:
    life = make_life(max_batch_tokens=10)
    add(life, prompt=4, max_tokens=5)
    life.step()
    add(life, prompt=20, max_tokens=5)
    plan = life.step()
    assert keys(plan) == [1, 2]
    assert plan.counts.tolist() == [1, 9]
    assert plan.logit_rows.tolist() == [0]
    assert plan.positions.tolist() == [4, *range(9)]


def test_finished_rows_make_place_for_waiting_ones_at_once() -> None:
    life = make_life(max_num_seqs=2)
    for length in (1, 3, 3):
        add(life, prompt=3, max_tokens=length)
    assert keys(life.step()) == [1, 2]
    assert keys(life.step()) == [2, 3]


def test_the_sequences_of_a_group_draw_together_or_not_at_all() -> None:
    life = make_life(max_batch_tokens=4, max_num_seqs=4)
    add(life, prompt=2, max_tokens=4)
    add(life, prompt=2, max_tokens=4, n=3)
    life.step()
    plan = life.step()  # 1 + 3 tokens: both
    assert plan.counts.tolist() == [1, 1, 1, 1]
    add(life, prompt=1, max_tokens=1)  # no place yet
    life = make_life(max_batch_tokens=4, max_num_seqs=5)
    add(life, prompt=1, max_tokens=4, n=2)
    add(life, prompt=1, max_tokens=4, n=3)
    life.step()
    for _ in range(3):
        assert keys(life.step()) == [1], "two tokens are left, for three samples"
    assert ends(life) == [1, 2]


def test_samples_are_forked_off_a_prompt_that_is_computed_once() -> None:
    life = make_life()
    group = add(life, prompt=10, max_tokens=3, n=4)
    plan = life.step()
    assert plan.counts.tolist() == [10] and len(plan.drawing) == 1
    assert [sequence.index for sequence in group.sequences] == [0, 1, 2, 3]
    assert used(life) == 3
    assert life.step().counts.tolist() == [1, 1, 1, 1]
    assert used(life) == 2 + 4


@pytest.mark.parametrize("sharers", [2, 3, 7])
@pytest.mark.parametrize("kind", ["n", "num_beams"])
def test_n_sharers_of_a_partial_block_make_n_minus_one_copies(sharers: int, kind: str) -> None:
    life = make_life()
    width: dict[str, Any] = {kind: sharers}
    group = add(life, prompt=6, max_tokens=3, **width)
    life.step()
    while len(group.sequences) < sharers:  # beams may be fewer at first
        life.scheduler.reparent(group, [0] * sharers)
    life.scheduler.schedule()
    assert len(life.scheduler.pool.copies) == sharers - 1
    assert group.copies == sharers - 1


def test_room_for_copies_is_made_too() -> None:
    life = make_life(blocks=8)
    wide = add(life, prompt=6, max_tokens=3, n=4)
    add(life, prompt=16, max_tokens=3)
    life.step()
    assert len(life.scheduler.running) == 2 and life.scheduler.pool.num_free == 2
    life.step()
    assert (wide.copies, life.scheduler.preemptions) == (3, 1)


def test_sharers_of_whole_blocks_copy_nothing() -> None:
    life = make_life()
    add(life, prompt=8, max_tokens=4, n=5)
    life.finish()
    assert life.scheduler.pool.copies_made == 0


def test_beams_that_no_beam_continues_are_gone() -> None:
    life = make_life()
    group = add(life, prompt=4, max_tokens=20, num_beams=4)
    life.step()
    life.scheduler.reparent(group, [0, 0, 0, 0])
    life.step()
    life.scheduler.reparent(group, [0, 1, 2, 3][: len(group.sequences)])
    beams = group.sequences
    life.scheduler.reparent(group, [1, 1, 0])
    assert group.sequences[0] is beams[1] and group.sequences[2] is beams[0]
    assert group.sequences[1].tokens == beams[1].tokens
    assert [sequence.index for sequence in group.sequences] == [0, 1, 2]
    assert all(beam.table_row == -1 for beam in beams[2:])
    assert life.scheduler.num_running == 3
    life.scheduler.check_integrity()


def test_beams_that_became_fewer_find_their_places_kept() -> None:
    life = make_life(max_num_seqs=4)
    group = add(life, prompt=4, max_tokens=9, num_beams=3)
    life.step()
    life.scheduler.reparent(group, [0])
    for _ in range(3):
        add(life, prompt=1, max_tokens=9)
    plan = life.scheduler.schedule()
    assert keys(plan) == [1, 2]
    life.scheduler.advance(plan)
    life.scheduler.reparent(group, [0, 0, 0])
    life.scheduler.check_integrity()


def test_samples_that_ended_give_their_places_to_others() -> None:
    life = make_life(max_num_seqs=3)
    group = add(life, prompt=4, max_tokens=9, n=3)
    add(life, prompt=4, max_tokens=2)
    plan = life.scheduler.schedule()
    life.scheduler.advance(plan)
    life.scheduler.reparent(group, [0, 0, 0])
    for sequence in group.sequences:
        sequence.append(1, 0.0)
    group.sequences[1].finish_reason = "stop"
    life.scheduler.retire(plan)
    assert keys(life.scheduler.schedule()) == [1, 2]
    life.scheduler.check_integrity()


def test_judged_prompts_are_computed_some_rows_at_a_time() -> None:
    life = make_life(max_batch_tokens=500, caching=True)
    prompt = list(range(2, PROMPT_ROWS + 12))
    add(life, prompt, max_tokens=1)
    life.finish()
    judged = add(life, prompt, max_tokens=1, prompt_logprobs=0)
    plan = life.step()
    assert judged.cached_tokens == 0, "what is not computed cannot be judged"
    assert plan.counts.tolist() == [PROMPT_ROWS]
    assert plan.prompt_rows[0].count == len(plan.logit_rows) == PROMPT_ROWS
    life.finish()


def test_all_judged_prompts_of_a_step_share_its_rows() -> None:
    life = make_life(max_batch_tokens=500)
    plain = add(life, list(range(2, 52)), max_tokens=1)
    for _ in range(3):
        add(life, list(range(2, 80)), max_tokens=1, prompt_logprobs=0)
    plan = life.step()
    assert plan.scheduled_tokens[0].group is plain and plan.scheduled_tokens[0].count == 50
    assert sum(rows.count for rows in plan.prompt_rows) == PROMPT_ROWS - 1  # one row drew
    life.finish()


def test_blocks_that_leave_the_window_come_back_at_once() -> None:
    life = make_life(blocks=20, window=6)
    add(life, prompt=30, max_tokens=30)
    life.step()
    for _ in range(25):
        life.step()
        assert used(life) <= 3


# Who comes in.


def test_admission_looks_at_the_whole_prompt_not_the_first_chunk() -> None:
    life = make_life(blocks=10, max_batch_tokens=8)
    add(life, prompt=8, max_tokens=8)
    life.step()
    add(life, prompt=36, max_tokens=2)
    for _ in range(6):
        assert keys(life.step()) == [1]
    assert life.scheduler.preemptions == 0


def test_a_group_that_can_never_fit_is_known_beforehand() -> None:
    life = make_life(blocks=3, max_num_seqs=2)
    for prompt, max_tokens, width, fits in [(4, 9, 1, True), (4, 10, 1, False), (1, 1, 3, False)]:
        group = life.group([1] * prompt, SamplingParams(n=width), max_tokens=max_tokens)
        assert life.scheduler.can_ever_fit(group) is fits
    with pytest.raises(AssertionError):
        life.add(life.group([1] * 4, max_tokens=10))


def test_what_is_expected_of_a_job_is_learned_from_its_rows() -> None:
    def started(*, learned: bool) -> int:
        life = make_life(blocks=60, foresight=True)
        if learned:
            life.add(life.group([2] * 4, max_tokens=5, job="job"))
            life.finish()
        for _ in range(8):
            life.add(life.group([7] * 4, max_tokens=100, job="job"))
        life.step()
        return len(life.scheduler.running)

    assert started(learned=False) < started(learned=True) == 8


def test_abort_takes_a_group_out_of_any_state() -> None:
    for state in GroupState:
        if state is GroupState.FINISHED:
            continue
        life = make_life(blocks=7, host_blocks=7, preemption="swap")
        groups = [add(life, prompt=8, max_tokens=12) for _ in range(3)]
        if state is GroupState.SWAPPED:
            until_preempted(life)
        elif state is GroupState.RUNNING:
            life.step()
        group = next(group for group in groups if group.state is state)
        life.abort(group.key)
        assert life.scheduler.num_waiting + len(life.scheduler.running) == 2
        assert set(ends(life)) == {1, 2, 3}


def test_an_aborted_group_that_was_to_be_computed_again_is_gone() -> None:
    life = make_life(blocks=7, preemption="recompute")
    for _ in range(2):
        add(life, prompt=8, max_tokens=12)
    until_preempted(life)
    life.abort(2)
    assert life.scheduler.num_waiting == 0
    assert ends(life) == [2, 1]


@pytest.mark.parametrize("blocked", [True, False])
def test_the_cost_of_a_step_does_not_depend_on_the_queue(blocked: bool) -> None:
    def calls(waiting: int) -> int:
        life = make_life(max_num_seqs=4, caching=True)
        for _ in range(3 + blocked):
            add(life, prompt=5, max_tokens=9)
        life.step()
        for _ in range(waiting):
            life.scheduler.add(life.group([9] * 5, max_tokens=9, job="job"))
        count = 0

        def note(*_: object) -> None:
            nonlocal count
            count += 1

        gc.disable()  # its callbacks would count
        sys.setprofile(note)
        try:
            plan = life.scheduler.schedule()
            life.scheduler.advance(plan)
            life.scheduler.retire(plan)
        finally:
            sys.setprofile(None)
            gc.enable()
        assert life.scheduler.num_waiting == waiting - (not blocked)
        return count

    assert calls(2) == calls(3000)


# What is found again.


def test_prompts_that_begin_alike_share_blocks_within_one_step() -> None:
    life = make_life(caching=True)
    prompt = list(range(2, 14))
    groups = [add(life, [*prompt, tail], max_tokens=3) for tail in (20, 21, 22)]
    plan = life.step()
    assert plan.counts.tolist() == [13, 1, 1]
    assert [group.cached_tokens for group in groups] == [0, 12, 12]
    assert used(life) == 3 + 3
    assert life.scheduler.prefixes is not None
    assert life.scheduler.prefixes.hit_tokens == 24


@pytest.mark.parametrize("length", [8, 9, 11])
def test_a_prompt_that_is_wholly_cached_still_computes_its_last_token(length: int) -> None:
    life = make_life(caching=True)
    prompt = list(range(2, 2 + length))
    add(life, prompt, max_tokens=1)
    life.finish()
    again = add(life, prompt, max_tokens=1)
    plan = life.step()
    assert again.cached_tokens == (length - 1) // 4 * 4
    assert plan.counts.tolist() == [length - (length - 1) // 4 * 4]
    assert len(plan.drawing) == 1


def test_salts_never_share() -> None:
    life = make_life(caching=True)
    prompt = list(range(2, 14))
    groups = [add(life, prompt, max_tokens=2, salt=salt) for salt in ("a", "b", "a")]
    life.step()
    assert [group.cached_tokens for group in groups] == [0, 0, 8]


def test_the_common_prefix_of_a_job_is_forgotten_last() -> None:
    def found(job: str) -> int:
        life = make_life(blocks=12, caching=True)
        system = list(range(2, 14))
        for tail in (20, 21):
            add(life, [*system, tail], max_tokens=2, job=job)
            life.finish()
        for tail in (30, 31, 32):  # others use every block but the pinned ones, and more recently
            add(life, [tail] * 33, max_tokens=3)
            life.finish()
        group = add(life, [*system, 22], max_tokens=2, job=job)
        life.finish()
        assert group.cached_tokens is not None
        return group.cached_tokens

    assert found(job="job") == 12
    assert found(job="") == 0

"""Rows give way when the pool is full, and all of them come back and end.

Every `Life` also checks that each sequence reads its own history: see `tests.support.scheduling`.
"""

from __future__ import annotations

from typing import Any

import pytest

from batchgen.engine.scheduling.plan import StepPlan
from batchgen.engine.scheduling.scheduler import SHORT
from batchgen.engine.scheduling.sequence import GroupState
from tests.support.scheduling import Life, add, ends, keys, make_life, until_preempted


def squeeze(life: Life) -> StepPlan:
    """Take all free blocks away, go on until somebody gives way; return the plan of that step."""
    scheduler = life.scheduler
    scheduler.pool.allocate(scheduler.pool.num_free)
    while not scheduler.preemptions:
        plan = scheduler.schedule()
        scheduler.advance(plan)
        for sequence in plan.drawing:
            sequence.append(1, 0.0)
    return plan


@pytest.mark.parametrize("preemption", ["swap", "recompute"])
def test_the_latest_arrival_gives_way_and_goes_on_with_what_it_drew(preemption: str) -> None:
    life = make_life(blocks=7, host_blocks=7, preemption=preemption)
    groups = [add(life, prompt=8, max_tokens=12) for _ in range(2)]
    until_preempted(life)
    (sequence,) = groups[1].sequences
    drawn = sequence.generated
    assert len(drawn) > 0
    if preemption == "swap":
        assert groups[1].state is GroupState.SWAPPED
        assert sequence.num_computed == 8 + len(drawn) - 1
    else:
        assert groups[1].state is GroupState.WAITING
        assert sequence.num_computed == 0
    assert ends(life) == [1, 2]
    assert sequence.generated[: len(drawn)] == drawn
    assert [group.preemptions for group in groups] == [0, 1]


def test_a_group_scheduled_in_a_step_is_not_preempted_in_it() -> None:
    # Both need a fourth block in the same step; one is left. The older takes it, the later waits.
    life = make_life(blocks=7)
    for _ in range(2):
        add(life, prompt=8, max_tokens=9)
    assert keys(until_preempted(life)) == [1]
    assert life.scheduler.preemptions == 1
    assert ends(life) == [1, 2]


def test_only_as_many_give_way_as_must() -> None:
    life = make_life(blocks=6)
    for _ in range(3):
        add(life, prompt=4, max_tokens=9)
    life.step()
    assert len(life.scheduler.running) == 3
    assert keys(until_preempted(life)) == [1, 2]
    assert life.scheduler.preemptions == 1
    assert ends(life) == [1, 2, 3]


def test_nothing_new_is_admitted_while_something_is_preempted() -> None:
    life = make_life(blocks=7)
    groups = [add(life, prompt=8, max_tokens=12) for _ in range(2)]
    until_preempted(life)
    groups.append(add(life, prompt=1, max_tokens=1))
    assert life.scheduler.pool.num_free >= 3, "there would be room for it"
    while groups[2].state is GroupState.WAITING:
        assert groups[1].state is GroupState.WAITING
        life.step()
    assert ends(life) == [1, 3, 2], "it came in right after"


def test_nothing_new_is_admitted_in_the_step_of_a_preemption() -> None:
    life = make_life(blocks=20)
    add(life, prompt=39, max_tokens=20)
    add(life, prompt=28, max_tokens=9)
    for _ in range(2):
        life.step()
    life.scheduler.pool.allocate(life.scheduler.pool.num_free)
    life.scheduler.add(life.group([1], max_tokens=1))
    assert keys(squeeze(life)) == [1]
    assert life.scheduler.pool.num_free >= 5, "there would be room for it"


@pytest.mark.parametrize("preemption", ["swap", "recompute"])
def test_two_groups_do_not_evict_each_other_for_ever(preemption: str) -> None:
    # Together they never fit after their first tokens.
    life = make_life(blocks=10, host_blocks=10, preemption=preemption)
    groups = [add(life, prompt=3, max_tokens=37) for _ in range(2)]
    steps = 0
    while life.alive:
        life.step()
        steps += 1
    assert steps <= 2 * 37 + 2
    assert [group.preemptions for group in groups] == [0, 1]


@pytest.mark.parametrize("preemption", ["auto", "swap", "recompute"])
def test_the_oldest_progresses_in_every_step(preemption: str) -> None:
    life = make_life(blocks=12, host_blocks=12, preemption=preemption)
    for _ in range(6):
        add(life, prompt=3, max_tokens=36)
    for at in range(6):
        oldest = life.alive[at + 1].sequences[0]
        while oldest.key in life.alive:
            before = oldest.num_generated
            life.step()
            assert oldest.num_generated == before + 1 or oldest.num_computed <= 3
    assert life.scheduler.preemptions > 5
    assert ends(life) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("preemption", "prompt", "width", "host_blocks", "state"),
    [
        ("auto", 8, 1, 60, GroupState.WAITING),  # short: soon computed again
        ("auto", SHORT + 1, 1, 60, GroupState.SWAPPED),
        ("auto", 8, 2, 60, GroupState.SWAPPED),  # what samples share would be computed twice
        ("auto", 8, 2, 0, GroupState.WAITING),
        ("auto", SHORT + 1, 1, 3, GroupState.WAITING),  # no room on the host
        ("swap", 8, 1, 60, GroupState.SWAPPED),
        ("swap", 8, 1, 1, GroupState.WAITING),
        ("recompute", SHORT + 1, 2, 60, GroupState.WAITING),
    ],
)
def test_who_is_swapped_and_who_is_computed_again(
    preemption: str, prompt: int, width: int, host_blocks: int, state: GroupState
) -> None:
    life = make_life(blocks=40, host_blocks=host_blocks, preemption=preemption, max_batch_tokens=99)
    add(life, prompt=4, max_tokens=140)
    group = add(life, prompt=prompt, max_tokens=30, n=width)
    for _ in range(3):
        life.step()
    squeeze(life)
    assert group.state is state


@pytest.mark.parametrize("kind", ["n", "num_beams"])
@pytest.mark.parametrize("preemption", ["swap", "recompute"])
def test_a_wide_group_survives_and_its_common_prefix_is_computed_once(
    kind: str, preemption: str
) -> None:
    life = make_life(blocks=17, host_blocks=17, preemption=preemption)
    add(life, prompt=20, max_tokens=30)
    width: dict[str, Any] = {kind: 3}
    group = add(life, prompt=18, max_tokens=12, **width)
    until_preempted(life)
    answers = [sequence.tokens.copy() for sequence in group.sequences]
    assert len(answers) > 1, "it was forked before"
    lengths = range(min(map(len, answers)))  # each draws from its last token, alike or not
    shared = max(n for n in lengths if len({tuple(answer[:n]) for answer in answers}) == 1)
    assert shared >= 18
    again: dict[int, int] = {}  # {position: how many sequences compute it after the preemption}
    while group.preemptions < 2 and [s.tokens for s in group.sequences] == answers:
        plan = life.step()
        for entry, start in zip(plan.scheduled_tokens, plan.starts.tolist(), strict=True):
            if entry.group is group:
                for position in range(start, start + entry.count):
                    again[position] = again.get(position, 0) + 1
    if preemption == "swap":
        assert set(again) == {len(answers[0]) - 1}
    else:
        assert all(again[position] == 1 for position in range(shared))
        assert again[len(answers[0]) - 1] == len(answers)
    assert ends(life) == [1, 2]
    assert [sequence.num_generated for sequence in group.sequences] == [12] * len(group.sequences)


def test_a_group_that_fits_alone_comes_back_alone() -> None:
    # Its answers part within a block and take the whole pool in the end: 2 times 3 blocks.
    life = make_life(blocks=6, preemption="recompute")
    add(life, prompt=1, max_tokens=20)
    group = add(life, prompt=2, max_tokens=11, n=2)
    until_preempted(life)
    assert group.shared_tokens is not None and group.shared_tokens % 4
    assert min(sequence.num_tokens for sequence in group.sequences) > 8
    assert ends(life) == [1, 2]


def test_what_was_dropped_is_found_again_if_nobody_needed_the_blocks() -> None:
    life = make_life(blocks=8, preemption="recompute", caching=True)
    add(life, prompt=8, max_tokens=12)
    group = add(life, prompt=16, max_tokens=9)
    until_preempted(life)
    assert group.sequences[0].num_computed == 0
    while group.state is GroupState.WAITING:
        plan = life.step()
    assert plan.scheduled_tokens[-1].group is group and plan.starts[-1] >= 12
    assert group.cached_tokens == 0, "what the prompt found at first is what is reported"
    life.finish()

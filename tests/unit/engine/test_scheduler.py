"""The scheduler without a model: what a step contains, who gives way, and that nothing is lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchgen.engine.blocks import BlockPool
from batchgen.engine.plan import StepPlan
from batchgen.engine.scheduler import Scheduler
from batchgen.engine.sequence import TRANSITIONS, GroupState, SequenceGroup
from batchgen.engine.tables import BlockTables
from batchgen.io.params import SamplingParams

BLOCK_SIZE = 4


def make_scheduler(
    *, blocks: int = 100, budget: int = 64, rows: int = 8, width: int = 50
) -> Scheduler:
    tables = BlockTables(BlockPool(blocks + 1, BLOCK_SIZE), rows=rows, width=width)
    return Scheduler(tables, max_batch_tokens=budget, max_num_seqs=rows)


def make_group(key: int, prompt: int, max_tokens: int) -> SequenceGroup:
    ids = [key] * prompt
    return SequenceGroup.of_prompt(key, ids, SamplingParams(), max_tokens=max_tokens)


def advance(scheduler: Scheduler, plan: StepPlan | None = None) -> list[SequenceGroup]:
    """Compute one step: every drawing sequence draws token 1, to its group's length."""
    plan = plan or scheduler.schedule()
    limits = {g.sequences[0]: g.max_tokens for g in scheduler.running}
    for sequence in plan.drawing:
        sequence.append(1, -1.0)
        if sequence.num_generated == limits[sequence]:
            sequence.finish_reason = "length"
    return scheduler.commit(plan)


def keys(plan: StepPlan) -> list[int]:
    return [sequence.tokens[0] for sequence in plan.sequences]


def test_a_long_prompt_is_computed_in_chunks_and_draws_after_the_last() -> None:
    scheduler = make_scheduler(budget=10)
    scheduler.add(make_group(1, prompt=23, max_tokens=2))
    plans = []
    for _ in range(3):
        plans.append(scheduler.schedule())
        advance(scheduler, plans[-1])
    assert [plan.counts.tolist() for plan in plans] == [[10], [10], [3]]
    assert [plan.starts.tolist() for plan in plans] == [[0], [10], [20]]
    assert [len(plan.drawing) for plan in plans] == [0, 0, 1]
    assert plans[1].positions.tolist() == list(range(10, 20))


def test_decode_and_prefill_share_a_step() -> None:
    scheduler = make_scheduler(budget=10)
    scheduler.add(make_group(1, prompt=4, max_tokens=5))
    advance(scheduler)
    scheduler.add(make_group(2, prompt=20, max_tokens=5))
    plan = scheduler.schedule()
    assert keys(plan) == [1, 2]
    assert plan.counts.tolist() == [1, 9]
    assert plan.logit_rows.tolist() == [0]
    assert plan.token_ids.tolist() == [1] + [2] * 9
    assert plan.positions.tolist() == [4, *range(9)]


def test_finished_rows_make_place_for_waiting_ones_at_once() -> None:
    scheduler = make_scheduler(rows=2)
    for key, length in [(1, 1), (2, 3), (3, 3)]:
        scheduler.add(make_group(key, prompt=3, max_tokens=length))
    plan = scheduler.schedule()
    assert keys(plan) == [1, 2]
    assert [group.key for group in advance(scheduler, plan)] == [1]
    assert keys(scheduler.schedule()) == [2, 3]


def test_admission_looks_at_the_whole_prompt_not_the_first_chunk() -> None:
    scheduler = make_scheduler(blocks=10, budget=8)
    scheduler.add(make_group(1, prompt=8, max_tokens=8))
    advance(scheduler)
    scheduler.add(make_group(2, prompt=36, max_tokens=2))
    for _ in range(6):
        plan = scheduler.schedule()
        assert keys(plan) == [1]
        advance(scheduler, plan)
    assert scheduler.preemptions == 0


def test_the_latest_arrival_gives_way_and_resumes_with_what_it_drew() -> None:
    scheduler = make_scheduler(blocks=7, budget=64)
    groups = [make_group(key, prompt=8, max_tokens=12) for key in (1, 2)]
    for group in groups:
        scheduler.add(group)
    while not scheduler.preemptions:
        advance(scheduler)
    assert groups[1].state is GroupState.WAITING
    assert groups[1].sequences[0].num_computed == 0
    drawn = groups[1].sequences[0].num_generated
    assert drawn > 0
    order = [group.key for _ in range(100) for group in advance(scheduler)]
    assert order == [1, 2]
    assert groups[1].sequences[0].num_generated == 12
    assert scheduler.pool.num_used == 0


def test_nothing_new_is_admitted_while_a_preempted_group_waits() -> None:
    scheduler = make_scheduler(blocks=7, budget=64)
    for key in (1, 2):
        scheduler.add(make_group(key, prompt=8, max_tokens=12))
    while not scheduler.preemptions:
        advance(scheduler)
    scheduler.add(make_group(3, prompt=1, max_tokens=1))
    order = [group.key for _ in range(100) for group in advance(scheduler)]
    assert order == [1, 3, 2]


def test_a_group_of_this_step_is_not_preempted_in_it() -> None:
    # Both need a block in the same step; one is left. The older takes it, the later waits.
    scheduler = make_scheduler(blocks=5, budget=64)
    for key in (1, 2):
        scheduler.add(make_group(key, prompt=8, max_tokens=4))
    advance(scheduler)
    plan = scheduler.schedule()
    assert keys(plan) == [1]
    assert scheduler.preemptions == 1
    scheduler.check_integrity()


def test_abort_frees_a_running_group_and_skips_a_waiting_one() -> None:
    scheduler = make_scheduler(rows=1)
    groups = [make_group(key, prompt=4, max_tokens=4) for key in (1, 2, 3)]
    for group in groups:
        scheduler.add(group)
    advance(scheduler)
    scheduler.abort(groups[0])
    scheduler.abort(groups[1])
    assert scheduler.num_waiting == 1
    assert keys(scheduler.schedule()) == [3]
    scheduler.check_integrity()


def test_a_group_that_can_never_fit_is_known_beforehand() -> None:
    scheduler = make_scheduler(blocks=3, width=50)
    assert scheduler.can_ever_fit(12)
    assert not scheduler.can_ever_fit(13)
    with pytest.raises(AssertionError):
        scheduler.add(make_group(1, prompt=10, max_tokens=10))


def test_states_change_along_the_table_only() -> None:
    for state, allowed in TRANSITIONS.items():
        for target in GroupState:
            group = make_group(1, prompt=1, max_tokens=1)
            group.state = state
            if target in allowed:
                group.move_to(target)
            else:
                with pytest.raises(AssertionError):
                    group.move_to(target)


class Machine(RuleBasedStateMachine):
    """Random adds, aborts and steps on a pool so small that groups are preempted all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make_scheduler(blocks=12, budget=9, rows=4, width=12)
        self.alive: dict[int, SequenceGroup] = {}
        self.next_key = 1

    @rule(prompt=st.integers(1, 30), max_tokens=st.integers(1, 18))
    def add(self, prompt: int, max_tokens: int) -> None:
        group = make_group(self.next_key, prompt, max_tokens)
        self.scheduler.add(group)
        self.alive[group.key] = group
        self.next_key += 1

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.alive)))
        self.scheduler.abort(self.alive.pop(key))

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.one_step()

    def one_step(self) -> None:
        oldest = min(self.alive.values(), key=lambda group: group.arrival, default=None)
        plan = self.scheduler.schedule()
        self.scheduler.check_integrity()
        assert plan.num_tokens <= self.scheduler.max_batch_tokens
        assert (oldest is None) == (plan.num_tokens == 0)
        if oldest is not None:
            assert plan.sequences[0] is oldest.sequences[0], "the oldest progresses in every step"
        for group in advance(self.scheduler, plan):
            assert group.sequences[0].num_generated == group.max_tokens
            assert self.alive.pop(group.key) is group

    @invariant()
    def consistent(self) -> None:
        self.scheduler.check_integrity()
        assert len(self.alive) == self.scheduler.num_waiting + len(self.scheduler.running)

    def teardown(self) -> None:
        for _ in range(10_000):
            if not self.alive:
                break
            self.one_step()
        assert not self.alive, "livelock"
        assert self.scheduler.pool.num_used == 0, "blocks leaked"


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


def test_a_long_random_life_leaks_nothing() -> None:
    rng = random.Random(7)  # noqa: S311
    machine = Machine()
    for _ in range(300):
        if len(machine.alive) < 12:
            machine.add(rng.randint(1, 30), rng.randint(1, 18))
        machine.one_step()
    assert machine.scheduler.preemptions > 5
    machine.teardown()

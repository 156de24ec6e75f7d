"""A scheduler whose plans are carried out on a memory of histories, and random lives of it.

In place of a key and a value a slot holds a number for its token and all tokens before it, as keys
and values do. So whatever is shared, copied, swapped or freed wrongly is read as a wrong number:

    tokens    7   7   1   0           numbers  a = h(salt, 7)   b = h(a, 7)   c = h(b, 1) …
    device  [ a   b   c   d ][ e  …   written as the plan says, copies and moves carried out first,
    host    [ a   b   c   d ][ …      then all that each sequence attends to is read and compared
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.plan import ScheduledTokens, StepPlan
from batchgen.engine.scheduling.prefixes import PrefixCache
from batchgen.engine.scheduling.scheduler import Preemption, Scheduler
from batchgen.engine.scheduling.sequence import GroupState, Sequence, SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper

Numbers = npt.NDArray[np.int64]

UNWRITTEN = -1  # never a history's number: those are not negative


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The sizes and settings of a scheduler."""

    # Of the device and the host, the null block not counted; no host pool where 0.
    blocks: int = 100
    host_blocks: int = 0
    block_size: int = 4
    max_num_seqs: int = 8
    max_batch_tokens: int = 64
    preemption: Preemption = "auto"
    caching: bool = False
    window: int | None = None
    # Whether groups are admitted by what all will need, or by what there is now.
    foresight: bool = True


def make_scheduler(world: World) -> Scheduler:
    """Return a scheduler over a new pool."""
    pool = BlockPool(world.blocks + 1, world.block_size)
    tables = BlockTables(pool, rows=world.max_num_seqs, width=world.blocks)
    host = BlockPool(world.host_blocks + 1, world.block_size) if world.host_blocks else None
    scheduler = Scheduler(
        tables,
        max_batch_tokens=world.max_batch_tokens,
        max_num_seqs=world.max_num_seqs,
        swapper=Swapper(tables, host),
        preemption=world.preemption,
        prefixes=PrefixCache(pool, model="model") if world.caching else None,
        window=world.window,
    )
    scheduler.admission.looks_ahead = world.foresight
    return scheduler


class History:
    """The numbers of a sequence; its companion, so that it forks when the sequence does."""

    def __init__(self, salt: str, numbers: list[int] | None = None) -> None:
        self._salt = salt
        self._numbers = numbers or []

    def fork(self) -> History:
        return History(self._salt, self._numbers.copy())

    def of(self, tokens: list[int]) -> list[int]:
        """Return the number of each of `tokens`, which go on from those asked for before."""
        numbers = self._numbers
        for token in tokens[len(numbers) :]:
            before = numbers[-1] if numbers else len(self._salt)
            numbers.append(hash((before, token)) & 0x7FFF_FFFF_FFFF_FFFF)
        return numbers


class Memory:
    """Device and host slots, filled and read as plans say."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._pool = scheduler.pool
        self._host_pool = scheduler.swapper.host
        self._window = scheduler.window
        size = self._pool.block_size
        self._device = np.full((self._pool.num_blocks, size), UNWRITTEN)
        host_blocks = self._host_pool.num_blocks if self._host_pool is not None else 1
        self._host = np.full((host_blocks, size), UNWRITTEN)

    def carry_out(self, plan: StepPlan) -> None:
        """Move, copy and write what `plan` says; every sequence must read its own history."""
        _move(self._device, self._host, plan.swap_outs)
        _move(self._host, self._device, plan.swap_ins)
        _move(self._device, self._device, plan.copies)
        numbers = [_numbers(entry) for entry in plan.scheduled_tokens]
        slots = [self._slots(plan, i) for i in range(len(plan.scheduled_tokens))]
        starts = plan.starts.tolist()
        self._write(numbers, slots, starts)
        for known, at, start in zip(numbers, slots, starts, strict=True):
            first = 0 if self._window is None else max(0, start + 1 - self._window)
            assert self._device.flat[at[first:]].tolist() == known[first : len(at)], (
                "a wrong history"
            )

    def scribble(self) -> None:
        """Spoil every block that nobody should read any more."""
        _scribble(self._device, self._pool)
        if self._host_pool is not None:
            _scribble(self._host, self._host_pool)

    def _write(self, numbers: list[list[int]], slots: list[Numbers], starts: list[int]) -> None:
        """Write all of a step before any of it is read, as every layer does."""
        written: set[int] = set()
        for known, at, start in zip(numbers, slots, starts, strict=True):
            places = at[start:].tolist()
            assert min(places) >= self._pool.block_size, "the null block is written"
            assert not written.intersection(places), "two sequences write one slot"
            written.update(places)
            self._device.flat[places] = known[start : len(at)]

    def _slots(self, plan: StepPlan, index: int) -> Numbers:
        """Return the slot of each token of entry `index`'s sequence, to the last one computed."""
        positions = np.arange(plan.starts[index] + plan.counts[index])
        size = self._pool.block_size
        blocks: Numbers = plan.tables[index, positions // size].astype(np.int64)
        slots: Numbers = blocks * size + positions % size
        return slots


def _move(source: Numbers, target: Numbers, pairs: list[tuple[int, int]]) -> None:
    if not pairs:
        return
    froms, tos = (list(column) for column in zip(*pairs, strict=True))
    assert len(set(tos)) == len(tos), "two blocks move to one place"
    assert 0 not in froms and 0 not in tos, "the null block moves"
    if source is target:
        assert not set(froms) & set(tos), "a copy is copied on"
    else:
        assert len(set(froms)) == len(froms), "a shared block moves twice"
    target[tos] = source[froms]


def _scribble(slots: Numbers, pool: BlockPool) -> None:
    free = np.flatnonzero(pool.references == 0).tolist()
    slots[[block for block in free if pool.key_of(block) is None]] = UNWRITTEN


def _numbers(entry: ScheduledTokens) -> list[int]:
    history = entry.sequence.companion
    assert isinstance(history, History)
    return history.of(entry.sequence.tokens)


class Life:
    """Groups that come, grow, part, give way, come back and end, each step checked.

    A step is an engine step, a new group or an abort. `rng` decides what is drawn and what ends.
    """

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.scheduler = make_scheduler(world)
        self.alive: dict[int, SequenceGroup] = {}
        self.ended: list[SequenceGroup] = []  # or aborted
        self.steps = 0  # each with a check of the whole scheduler after it
        self._memory = Memory(self.scheduler)
        self._keys = 0
        self._judged: dict[int, set[int]] = {}  # {key: positions of prompt tokens}

    def group(
        self,
        prompt: list[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int,
        job: str = "",
        salt: str = "",
    ) -> SequenceGroup:
        """Return a new group, not added yet."""
        self._keys += 1
        params = params or SamplingParams()
        group = SequenceGroup.of_prompt(
            self._keys, prompt.copy(), params, max_tokens=max_tokens, job=job, salt=salt
        )
        group.sequences[0].companion = History(salt)
        return group

    def add(self, group: SequenceGroup) -> None:
        """Queue `group`."""
        self.scheduler.add(group)
        self.alive[group.key] = group
        self._check()

    def abort(self, key: int) -> None:
        """End a group that is alive."""
        group = self.alive.pop(key)
        self.scheduler.abort(group)
        self.ended.append(group)
        self._check()

    def step(self) -> StepPlan:
        """Compute one step: whoever catches up draws, and some answers end."""
        plan = self._schedule()
        self._memory.carry_out(plan)
        self.scheduler.advance(plan)
        self._judge(plan)
        self._decode(plan)
        for group in self.scheduler.retire(plan):
            assert self.alive.pop(group.key) is group
            self.ended.append(group)
        self._memory.scribble()
        self._check()
        return plan

    def finish(self) -> None:
        """Step until all that is alive has ended; nothing may be held then."""
        # Each step brings the oldest one token nearer to its end at least.
        enough = sum(group.width * group.peak_tokens for group in self.alive.values())
        for _ in range(enough):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "livelock"
        assert not self.scheduler.has_unfinished()
        assert self.scheduler.pool.num_used == 0, "device blocks leaked"
        host = self.scheduler.swapper.host
        assert host is None or host.num_used == 0, "host blocks leaked"
        counted = sum(group.preemptions for group in self.ended)
        assert counted == self.scheduler.preemptions, "preemptions of nobody"
        copies = sum(group.copies for group in self.ended)
        assert copies == self.scheduler.pool.copies_made, "copies of nobody"

    def _check(self) -> None:
        self.scheduler.check_integrity()
        self.steps += 1

    def _schedule(self) -> StepPlan:
        scheduler = self.scheduler
        running, preemptions = set(scheduler.running), scheduler.preemptions
        plan = scheduler.schedule()
        assert plan.num_tokens <= self.world.max_batch_tokens
        assert bool(self.alive) == (plan.num_tokens > 0), "nothing is computed"
        if self.alive:
            oldest = min(self.alive.values(), key=lambda group: group.arrival)
            assert plan.scheduled_tokens[0].group is oldest, "the oldest stands still"
        admitted = [group for group in scheduler.running if group not in running]
        if scheduler.preemptions > preemptions:
            assert not admitted, "someone comes in where someone had to go"
        if scheduler.preempted:
            assert all(group.preemptions for group in admitted), "someone new overtakes"
        return plan

    def _judge(self, plan: StepPlan) -> None:
        """Note which prompt tokens the rows of logits are about."""
        positions = plan.positions[plan.logit_rows].tolist()
        assert positions[: len(plan.drawing)] == [s.num_tokens - 1 for s in plan.drawing]
        before: list[int] = []  # the position before each prompt token that is judged
        for rows in plan.prompt_rows:
            judged = range(rows.start, rows.start + rows.count)
            self._judged.setdefault(rows.sequence.key, set()).update(judged)
            before += [position - 1 for position in judged]
        assert positions[len(plan.drawing) :] == before

    def _decode(self, plan: StepPlan) -> None:
        drawing: dict[int, list[Sequence]] = {}
        for sequence in plan.drawing:
            drawing.setdefault(sequence.key, []).append(sequence)
        for key, sequences in drawing.items():
            group = self.alive[key]
            assert group.state is GroupState.RUNNING
            assert sequences == group.unfinished, "some draw and others do not"
            if group.params.prompt_logprobs is not None:
                assert self._judged.get(key, set()) == set(range(1, group.num_prompt))
            self._grow(group)

    def _grow(self, group: SequenceGroup) -> None:
        beams = group.params.num_beams > 1
        if beams:
            self.scheduler.reparent(group, self._parents(group))
        elif group.is_prompt and group.width > 1:
            self.scheduler.reparent(group, [0] * group.width)
        over = beams and not group.params.ignore_eos and self.rng.random() < 0.03
        for sequence in group.unfinished:
            sequence.append(self.rng.randrange(2), 0.0)
            if sequence.num_generated == group.max_tokens:
                sequence.finish_reason = "length"
            elif over or (self._may_stop(group) and self.rng.random() < 0.05):
                sequence.finish_reason = "stop"

    def _may_stop(self, group: SequenceGroup) -> bool:
        return group.params.num_beams == 1 and not group.params.ignore_eos

    def _parents(self, group: SequenceGroup) -> list[int]:
        """Return a parent for each of the next beams, which are fewer than `width` at times."""
        count = group.width if self.rng.random() < 0.8 else self.rng.randint(1, group.width)
        return [self.rng.randrange(len(group.unfinished)) for _ in range(count)]


def make_life(**world: Any) -> Life:
    """Return a life with blocks of 4 that admits whoever fits at present."""
    return Life(World(**{"foresight": False, **world}), Random(0))  # noqa: S311


def add(
    life: Life,
    prompt: int | list[int],
    max_tokens: int,
    *,
    job: str = "",
    salt: str = "",
    **params: Any,
) -> SequenceGroup:
    """Add a group whose answers have exactly `max_tokens`; prompts by number share nothing."""
    sampling = SamplingParams(ignore_eos=True, **params)
    if not isinstance(prompt, list):
        prompt = [2 + len(life.alive) + len(life.ended)] * prompt
    group = life.group(prompt, sampling, max_tokens=max_tokens, job=job, salt=salt)
    life.add(group)
    return group


def keys(plan: StepPlan) -> list[int]:
    """Return the keys of the groups that `plan` computes, oldest first."""
    return list(dict.fromkeys(entry.group.key for entry in plan.scheduled_tokens))


def until_preempted(life: Life) -> StepPlan:
    """Go on until somebody gives way; return the plan of that step."""
    plan = life.step()
    while not life.scheduler.preemptions:
        assert life.alive, "everybody had room"
        plan = life.step()
    return plan


def ends(life: Life) -> list[int]:
    """Return the keys of all groups in the order in which they end."""
    life.finish()
    return [group.key for group in life.ended]

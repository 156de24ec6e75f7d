"""The scheduler: it chooses the tokens of each step.

A step has a budget of tokens. Running groups take theirs first, oldest first. If the pool has no
block for one of them, the latest arrival is preempted: its blocks are swapped to the host, or
dropped and computed again later. Preempted groups return before new groups are admitted, and a step
that preempts a group admits none. So groups progress in the order of their arrival:

    running   [ oldest … latest ]  <  preempted  [ … ]  <  waiting  [ … ]

The sequences of a group draw together: in a step either all of them catch up or none does.

Source of groups and preemption: PagedAttention (Kwon et al., SOSP 2023), section 4.5.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np

from batchgen.engine.scheduling.admission import Admission
from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import Blocks
from batchgen.engine.scheduling.plan import ScheduledTokens, StepPlan, pack
from batchgen.engine.scheduling.prefixes import PrefixCache
from batchgen.engine.scheduling.sequence import NO_ROW, GroupState, Sequence, SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper

Preemption = Literal["auto", "swap", "recompute"]

SHORT = 64  # up to so many tokens, computing again is faster than swapping out and in
NO_BLOCKS: Blocks = np.zeros(0, dtype=np.int32)
PROMPT_ROWS = 128  # prompt tokens per step that get logprobs; each needs a row of logits


class Scheduler:
    """Continuous batching of sequence groups over one block pool.

        plan = schedule()      the engine moves blocks and computes the plan's tokens
        advance(plan)          note that they are computed
        reparent(group, …)     fork samples and beams; the engine appends the drawn tokens
        retire(plan)           take the blocks of sequences that ended

    The oldest group progresses in every step, so a group that `can_ever_fit` always ends.
    """

    def __init__(
        self,
        tables: BlockTables,
        *,
        max_batch_tokens: int,
        max_num_seqs: int,
        swapper: Swapper | None = None,
        preemption: Preemption = "auto",
        prefixes: PrefixCache | None = None,
        window: int | None = None,
    ) -> None:
        """Schedule over `tables`.

        `prefixes` is None if prefix caching is off. `window` is the largest attention window of all
        layers, in tokens; None if a layer sees all tokens.
        """
        self.tables = tables
        self.pool = tables.pool
        self.max_batch_tokens = max_batch_tokens
        self.max_num_seqs = max_num_seqs
        self.swapper = swapper or Swapper(tables, None)
        self.preemption: Preemption = preemption
        self.prefixes = prefixes
        self.window = window
        self.lengths = LengthBook()
        self.running: list[SequenceGroup] = []  # in order of arrival, as the next two
        self.preempted: deque[SequenceGroup] = deque()
        self.preemptions = 0
        self._waiting: deque[SequenceGroup] = deque()  # aborted groups leave when they come up
        self._num_waiting = 0
        self._arrivals = 0
        self._rows_left = PROMPT_ROWS  # of the step that is being scheduled
        self.admission = Admission(tables, self.lengths, max_num_seqs=max_num_seqs)

    @property
    def num_waiting(self) -> int:
        """The number of groups that are new or preempted, and hold no device blocks."""
        return self._num_waiting + len(self.preempted)

    @property
    def num_swapped(self) -> int:
        """The number of groups whose keys and values are in host memory."""
        return sum(group.state is GroupState.SWAPPED for group in self.preempted)

    @property
    def num_running(self) -> int:
        """The number of sequences that hold blocks."""
        return sum(len(group.computing) for group in self.running)

    def has_unfinished(self) -> bool:
        """Return whether a group is waiting or running."""
        return bool(self._num_waiting or self.preempted or self.running)

    def can_ever_fit(self, group: SequenceGroup) -> bool:
        """Return whether `group` fits at its peak if it runs alone."""
        most = min(self.max_num_seqs, self.max_batch_tokens)
        return group.width <= most and self.admission.can_ever_fit(group)

    def add(self, group: SequenceGroup) -> None:
        """Queue a new group behind every other."""
        assert self.can_ever_fit(group), (group.peak_tokens, group.width)
        group.arrival = self._arrivals
        self._arrivals += 1
        self._waiting.append(group)
        self._num_waiting += 1
        if self.prefixes is not None:
            self.prefixes.add(group)

    def abort(self, group: SequenceGroup) -> None:
        """End `group` now, in any state; it must not be in a plan that is not advanced yet."""
        if group.state is GroupState.RUNNING:
            self._close(group.computing)
            self.running.remove(group)
        elif group in self.preempted:
            self.preempted.remove(group)
            if group.state is GroupState.SWAPPED:
                self.swapper.drop(group)
        elif group.state is GroupState.WAITING:
            self._num_waiting -= 1
        group.move_to(GroupState.FINISHED)

    def schedule(self) -> StepPlan:
        """Return the plan of the next step. It has tokens if any group is unfinished."""
        preemptions = self.preemptions
        self._rows_left = PROMPT_ROWS
        scheduled = self._run(self.max_batch_tokens)
        if self.preemptions == preemptions:
            scheduled += self._admit(
                self.max_batch_tokens - sum(entry.count for entry in scheduled)
            )
        moves = self.swapper
        return pack(scheduled, self.tables, swap_outs=moves.outs, swap_ins=moves.ins)

    def advance(self, plan: StepPlan) -> None:
        """Note that `plan` was computed."""
        self.pool.finish_copies()
        self.swapper.finish()
        for entry in plan.scheduled_tokens:
            entry.sequence.num_computed += entry.count
            if self.window is not None:
                # The next token sees the `window` tokens up to and including itself.
                first = entry.sequence.num_computed + 1 - self.window
                self.tables.forget(entry.sequence.table_row, max(0, first))
            if entry.group.shared_tokens == entry.sequence.num_computed:
                self._fork_rest(entry.group)

    def reparent(self, group: SequenceGroup, parents: list[int]) -> None:
        """Replace the unfinished sequences of a running group by their children.

        Child i continues unfinished sequence `parents[i]` and shares its blocks until either
        writes. A sequence without children is dropped.
        """
        old = group.unfinished
        self._close([old[i] for i in set(range(len(old))) - set(parents)])
        heirs: dict[int, int] = {}
        for child, parent in enumerate(parents):
            heirs.setdefault(parent, child)
        children = [
            self._fork(old[parent], index) if heirs[parent] != index else old[parent]
            for index, parent in enumerate(parents)
        ]
        for index, sequence in enumerate(children):
            sequence.index = index
        group.sequences = children

    def retire(self, plan: StepPlan) -> list[SequenceGroup]:
        """Release the blocks of ended sequences of `plan`; return the groups that ended."""
        ended: list[SequenceGroup] = []
        for group in dict.fromkeys(entry.group for entry in plan.scheduled_tokens):
            done = [s for s in group.sequences if s.finish_reason is not None]
            self._close([sequence for sequence in done if sequence.table_row != NO_ROW])
            if len(done) == len(group.sequences):
                ended.append(group)
        for group in ended:
            group.move_to(GroupState.FINISHED)
            self.lengths.observe(group)
        if ended:
            self.running = [g for g in self.running if g.state is GroupState.RUNNING]
        return ended

    def _run(self, budget: int) -> list[ScheduledTokens]:
        """Give running groups tokens and blocks; preempt from the end of the list if needed."""
        scheduled: list[ScheduledTokens] = []
        at = 0
        while at < len(self.running) and budget > 0:
            group = self.running[at]
            taken = self._schedule_group(group, budget)
            if taken and not self._make_room(group, taken):
                break
            self._take_blocks(group, taken)
            scheduled += taken
            budget -= sum(entry.count for entry in taken)
            at += 1
        return scheduled

    def _schedule_group(self, group: SequenceGroup, budget: int) -> list[ScheduledTokens]:
        """Return the pending tokens of `group` that this step computes, `budget` at most."""
        judged = group.wants_prompt_logprobs
        if judged:
            budget = min(budget, self._rows_left)
        pending = {s: group.goal(s) - s.num_computed for s in group.computing}
        if sum(pending.values()) > budget:
            # All sequences of a group draw in the same step, so each keeps its last token back.
            held = 0 if group.shared_tokens is not None else 1
            pending = {sequence: count - held for sequence, count in pending.items()}
        scheduled = []
        for sequence, count in pending.items():
            count = min(count, budget)
            budget -= count
            if count:
                scheduled.append(ScheduledTokens(group=group, sequence=sequence, count=count))
        if judged:
            self._rows_left -= sum(entry.count for entry in scheduled)
        return scheduled

    def _make_room(self, group: SequenceGroup, scheduled: list[ScheduledTokens]) -> bool:
        """Preempt the latest arrivals until `scheduled` have blocks; False if `group` was one."""
        needed = self._blocks_needed(group, scheduled)
        while needed > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            if victim is group:
                return False
            needed = self._blocks_needed(group, scheduled)  # fewer copies if fewer sequences share
        return True

    def _blocks_needed(self, group: SequenceGroup, scheduled: list[ScheduledTokens]) -> int:
        """Return how many blocks all known tokens need, plus the copies on write of this step."""
        writers = [(entry.sequence.table_row, entry.sequence.num_computed) for entry in scheduled]
        grown = sum(
            self.tables.missing(entry.sequence.table_row, group.goal(entry.sequence))
            for entry in scheduled
        )
        return grown + self.tables.copies_to_own(writers)

    def _take_blocks(self, group: SequenceGroup, scheduled: list[ScheduledTokens]) -> None:
        copies = len(self.pool.copies)
        for entry in scheduled:
            self.tables.copy_on_write(entry.sequence.table_row, entry.sequence.num_computed)
        group.copies += len(self.pool.copies) - copies
        for entry in scheduled:
            self.tables.grow(entry.sequence.table_row, group.goal(entry.sequence))
            if self.prefixes is not None:
                self._cache_blocks(entry)

    def _cache_blocks(self, entry: ScheduledTokens) -> None:
        assert self.prefixes is not None
        sequence, start = entry.sequence, entry.sequence.num_computed
        blocks = self.tables.of(sequence.table_row)
        end = start + entry.count
        self.prefixes.cache_blocks(sequence, entry.group.salt, blocks, start=start, end=end)

    def _admit(self, budget: int) -> list[ScheduledTokens]:
        """Start groups, preempted ones first, while there is room and budget."""
        scheduled: list[ScheduledTokens] = []
        while budget > 0 and (queue := self._queue()):
            group = queue[0]
            if not self._can_admit(group):
                break
            queue.popleft()
            self._num_waiting -= queue is self._waiting
            self._start(group)
            taken = self._schedule_group(group, budget)
            self._take_blocks(group, taken)
            scheduled += taken
            budget -= sum(entry.count for entry in taken)
        return scheduled

    def _queue(self) -> deque[SequenceGroup]:
        """Return the queue to serve next; it is empty if no group waits."""
        while self._waiting and self._waiting[0].state is GroupState.FINISHED:  # aborted there
            self._waiting.popleft()
        return self.preempted or self._waiting

    def _can_admit(self, group: SequenceGroup) -> bool:
        if group.state is GroupState.SWAPPED:
            needed = self.swapper.blocks_to_return(group)
        else:
            cached = int((self.pool.references[self._cached(group)] > 0).sum())
            needed = self.admission.blocks_to_start(group, cached=cached)
        return self.admission.allows(group, needed, running=self.running)

    def _start(self, group: SequenceGroup) -> None:
        """Start `group` with the blocks that the cache or the host pool still holds of it."""
        if group.state is GroupState.SWAPPED:
            self.swapper.swap_in(group)
        else:
            self._open(group)
        group.move_to(GroupState.RUNNING)
        self.running.append(group)

    def _open(self, group: SequenceGroup) -> None:
        """Give the first sequence a row with its cached blocks, which count as computed."""
        cached = self._cached(group)
        first = group.computing[0]
        first.table_row = self.tables.open(cached)
        first.num_computed = len(cached) * self.pool.block_size
        if group.cached_tokens is None:
            group.cached_tokens = first.num_computed
            if self.prefixes is not None:
                self.prefixes.count(group)
        if group.shared_tokens == first.num_computed:
            self._fork_rest(group)

    def _cached(self, group: SequenceGroup) -> Blocks:
        """Return the cached blocks that hold the beginning of `group`."""
        if self.prefixes is None or group.wants_prompt_logprobs:
            return NO_BLOCKS
        first = group.computing[0]
        # The last token is always computed, because the next one is drawn from its logits.
        limit = first.num_tokens - 1 if group.shared_tokens is None else group.shared_tokens
        return self.prefixes.match(first, group.salt, limit=limit)

    def _fork_rest(self, group: SequenceGroup) -> None:
        """Fork the other sequences from the first, which has computed their common tokens."""
        first, *others = group.unfinished
        group.shared_tokens = None
        for sequence in others:
            sequence.table_row = self.tables.fork(first.table_row)
            sequence.num_computed = first.num_computed

    def _fork(self, parent: Sequence, index: int) -> Sequence:
        child = parent.fork(index)
        child.table_row = self.tables.fork(parent.table_row)
        return child

    def _preempt(self, group: SequenceGroup) -> None:
        """Take every block from `group`; it returns before new groups."""
        if self._swaps(group):
            self.swapper.swap_out(group)
            group.move_to(GroupState.SWAPPED)
        else:
            self._close(group.computing)
            group.forget_computed()
            group.move_to(GroupState.WAITING)
        group.preemptions += 1
        self.preemptions += 1
        self.preempted.appendleft(group)

    def _swaps(self, group: SequenceGroup) -> bool:
        """Return whether to swap `group` out rather than to compute it again later.

        Several sequences are swapped, because computing them again would lose their sharing. A
        single short one is computed again, because that is faster.
        """
        computed = max(sequence.num_computed for sequence in group.computing)
        if self.preemption == "recompute" or computed == 0:
            return False
        short = len(group.computing) == 1 and computed <= SHORT
        if self.preemption == "auto" and short:
            return False
        return self.swapper.has_room(group)

    def _close(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self.tables.close(sequence.table_row)
            sequence.table_row = NO_ROW

    def check_integrity(self) -> None:
        """Assert that queues, states, tables and pools agree."""
        self.tables.check_integrity()
        swapped = [group for group in self.preempted if group.state is GroupState.SWAPPED]
        self.swapper.check_integrity(swapped)
        waiting = [group for group in self._waiting if group.state is not GroupState.FINISHED]
        assert len(waiting) == self._num_waiting, (len(waiting), self._num_waiting)
        assert all(group.state is GroupState.WAITING for group in waiting)
        assert all(group.state is GroupState.RUNNING for group in self.running)
        arrivals = [group.arrival for group in [*self.running, *self.preempted, *waiting]]
        assert arrivals == sorted(arrivals), "a group overtook another"
        rows = [sequence.table_row for group in self.running for sequence in group.computing]
        assert len({*rows, NO_ROW}) == len(rows) + 1, "two sequences share a row, or one has none"
        assert len(rows) + self.tables.num_closed == len(self.tables.sizes), "a row is lost"
        assert sum(group.slots for group in self.running) <= self.max_num_seqs

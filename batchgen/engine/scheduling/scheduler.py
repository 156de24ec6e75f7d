"""Which tokens of which sequences are computed next.

A step has a budget of tokens. Running groups take theirs first, oldest first. When the pool has no
block for one of them, the latest arrival gives up all of its blocks: they are swapped to the host,
or dropped and computed again. Preempted groups come back before anyone new is admitted, and nobody
comes in during a step in which somebody had to go. So arrival is the order of who progresses:

    running   [ oldest … latest ]  <  preempted  [ … ]  <  waiting  [ … ]

The sequences of a group draw together: in a step either all of them catch up or none does.
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

SHORT = 64  # tokens that are computed again sooner than they are moved out and in
NO_BLOCKS: Blocks = np.zeros(0, dtype=np.int32)
PROMPT_ROWS = 128  # prompt tokens judged in one step, each by a row of vocabulary size


class Scheduler:
    """Continuous batching of sequence groups over one block pool.

        plan = schedule()      the engine moves blocks, computes the plan's tokens
        advance(plan)          they are computed now
        reparent(group, …)     samples and beams fork; the engine appends what was drawn
        retire()               what ended gives its blocks back

    A group that `can_ever_fit` is never stuck: the oldest progresses in every step.
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

        `prefixes` is None where nothing is cached; `window` is the number of keys that every layer
        is content with, None where one sees all.
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
        """Groups that hold no blocks yet, or no more."""
        return self._num_waiting + len(self.preempted)

    @property
    def num_swapped(self) -> int:
        """Groups whose keys and values are in host memory."""
        return sum(group.state is GroupState.SWAPPED for group in self.preempted)

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return sum(len(group.computing) for group in self.running)

    def has_unfinished(self) -> bool:
        """Return whether any group is waiting or running."""
        return bool(self._num_waiting or self.preempted or self.running)

    def can_ever_fit(self, group: SequenceGroup) -> bool:
        """Return whether `group` has room at its peak when it runs alone."""
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
        """End `group` now, whatever its state; it must not be part of an uncommitted plan."""
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
        """Return the next step. It computes something unless nothing is unfinished."""
        preemptions = self.preemptions
        self._rows_left = PROMPT_ROWS
        shares = self._run(self.max_batch_tokens)
        if self.preemptions == preemptions:
            shares += self._admit(self.max_batch_tokens - sum(share.count for share in shares))
        moves = self.swapper
        return pack(shares, self.tables, swap_outs=moves.outs, swap_ins=moves.ins)

    def advance(self, plan: StepPlan) -> None:
        """Note that `plan` was computed."""
        self.pool.finish_copies()
        self.swapper.finish()
        for share in plan.shares:
            share.sequence.num_computed += share.count
            if self.window is not None:
                # The next query sees the `window` keys up to and including its own.
                first = share.sequence.num_computed + 1 - self.window
                self.tables.forget(share.sequence.table_row, max(0, first))
            if share.group.shared_tokens == share.sequence.num_computed:
                self._fork_rest(share.group)

    def reparent(self, group: SequenceGroup, parents: list[int]) -> None:
        """Replace the growing sequences of a running group by children of them.

        Child i continues growing sequence `parents[i]`: it shares its blocks until either writes.
        A sequence without children is gone.
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
        """Take the blocks of the sequences of `plan` that ended; return the groups that did."""
        ended: list[SequenceGroup] = []
        for group in dict.fromkeys(share.group for share in plan.shares):
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
        """Give running groups their tokens and blocks, preempting from the end of the list."""
        shares: list[ScheduledTokens] = []
        at = 0
        while at < len(self.running) and budget > 0:
            group = self.running[at]
            taken = self._shares(group, budget)
            if taken and not self._make_room(group, taken):
                break
            self._take_blocks(group, taken)
            shares += taken
            budget -= sum(share.count for share in taken)
            at += 1
        return shares

    def _shares(self, group: SequenceGroup, budget: int) -> list[ScheduledTokens]:
        """Give the sequences of `group` their pending tokens, as far as `budget` goes."""
        judged = group.wants_prompt_logprobs
        if judged:
            budget = min(budget, self._rows_left)
        pending = {s: group.goal(s) - s.num_computed for s in group.computing}
        if sum(pending.values()) > budget:
            # Whoever catches up draws, so the last token of each waits for those of the others.
            held = 0 if group.shared_tokens is not None else 1
            pending = {sequence: count - held for sequence, count in pending.items()}
        shares = []
        for sequence, count in pending.items():
            count = min(count, budget)
            budget -= count
            if count:
                shares.append(ScheduledTokens(group=group, sequence=sequence, count=count))
        if judged:
            self._rows_left -= sum(share.count for share in shares)
        return shares

    def _make_room(self, group: SequenceGroup, shares: list[ScheduledTokens]) -> bool:
        """Preempt from the latest arrival until `shares` have blocks; False if it was `group`."""
        needed = self._blocks_needed(group, shares)
        while needed > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            if victim is group:
                return False
            needed = self._blocks_needed(group, shares)  # fewer may share what it writes
        return True

    def _blocks_needed(self, group: SequenceGroup, shares: list[ScheduledTokens]) -> int:
        """Return the new blocks for all known tokens, and the copies for what is written now."""
        writers = [(share.sequence.table_row, share.sequence.num_computed) for share in shares]
        grown = sum(
            self.tables.missing(share.sequence.table_row, group.goal(share.sequence))
            for share in shares
        )
        return grown + self.tables.copies_to_own(writers)

    def _take_blocks(self, group: SequenceGroup, shares: list[ScheduledTokens]) -> None:
        copies = len(self.pool.copies)
        for share in shares:
            self.tables.copy_on_write(share.sequence.table_row, share.sequence.num_computed)
        group.copies += len(self.pool.copies) - copies
        for share in shares:
            self.tables.grow(share.sequence.table_row, group.goal(share.sequence))
            if self.prefixes is not None:
                self._remember(share)

    def _remember(self, share: ScheduledTokens) -> None:
        assert self.prefixes is not None
        sequence, start = share.sequence, share.sequence.num_computed
        blocks = self.tables.of(sequence.table_row)
        end = start + share.count
        self.prefixes.cache_blocks(sequence, share.group.salt, blocks, start=start, end=end)

    def _admit(self, budget: int) -> list[ScheduledTokens]:
        """Let groups in, those that were preempted first, while there is room and budget."""
        shares: list[ScheduledTokens] = []
        while budget > 0 and (queue := self._queue()):
            group = queue[0]
            if not self._can_admit(group):
                break
            queue.popleft()
            self._num_waiting -= queue is self._waiting
            self._start(group)
            taken = self._shares(group, budget)
            self._take_blocks(group, taken)
            shares += taken
            budget -= sum(share.count for share in taken)
        return shares

    def _queue(self) -> deque[SequenceGroup]:
        """Return the queue that is to be served, both empty where nobody waits."""
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
        """Give `group` its rows, with what the device or the host still has of it."""
        if group.state is GroupState.SWAPPED:
            self.swapper.swap_in(group)
        else:
            self._open(group)
        group.move_to(GroupState.RUNNING)
        self.running.append(group)

    def _open(self, group: SequenceGroup) -> None:
        """Give the first sequence a row; what the cache has of it is computed already."""
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
        """Return the blocks that hold the beginning of `group` already."""
        if self.prefixes is None or group.wants_prompt_logprobs:
            return NO_BLOCKS
        first = group.computing[0]
        # Who draws computes at least its last token, whose logits it draws from.
        limit = first.num_tokens - 1 if group.shared_tokens is None else group.shared_tokens
        return self.prefixes.match(first, group.salt, limit=limit)

    def _fork_rest(self, group: SequenceGroup) -> None:
        """Fork the other sequences off the first: it has computed what they share."""
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
        """Take every block from `group`, which comes back before anyone new."""
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
        """Whether to swap `group` rather than to compute it again.

        Computing several sequences again undoes their sharing; a short one is soon computed.
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
        assert arrivals == sorted(arrivals), "someone overtook"
        rows = [sequence.table_row for group in self.running for sequence in group.computing]
        assert len({*rows, NO_ROW}) == len(rows) + 1, "two sequences share a row, or one has none"
        assert len(rows) + self.tables.num_closed == len(self.tables.sizes), "a row is lost"
        assert sum(group.slots for group in self.running) <= self.max_num_seqs

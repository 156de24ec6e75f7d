"""Which tokens of which sequences are computed next.

A step has a budget of tokens. Running groups take theirs first, oldest first; what is left admits
waiting groups in the order of arrival, a long prompt in chunks. When the pool has no block for a
running group, the latest arrival gives up all of its blocks and waits, at the head of the queue,
to be computed again. So arrival is also the order of who progresses:

    running   [ oldest … latest ]  <  waiting  [ preempted … | new … ]
"""

from __future__ import annotations

from collections import deque

from batchgen.engine.plan import StepPlan, pack
from batchgen.engine.sequence import NO_ROW, GroupState, Sequence, SequenceGroup
from batchgen.engine.tables import BlockTables


class Scheduler:
    """Continuous batching of sequence groups over one block pool.

    The engine calls `schedule`, computes the plan, appends to `plan.drawing` what was drawn, and
    calls `commit`. A group that `can_ever_fit` is never stuck: the oldest progresses in every step.
    """

    def __init__(self, tables: BlockTables, *, max_batch_tokens: int, max_num_seqs: int) -> None:
        self.tables = tables
        self.pool = tables.pool
        self.max_batch_tokens = max_batch_tokens
        self.max_num_seqs = max_num_seqs
        self.running: list[SequenceGroup] = []  # in order of arrival
        self.preemptions = 0
        self._waiting: deque[SequenceGroup] = deque()  # aborted groups leave when they come up
        self._num_waiting = 0
        self._arrivals = 0

    @property
    def num_waiting(self) -> int:
        """Groups that hold no blocks yet, or no more."""
        return self._num_waiting

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return sum(len(group.unfinished) for group in self.running)

    def has_unfinished(self) -> bool:
        """Return whether any group is waiting or running."""
        return bool(self._num_waiting or self.running)

    def can_ever_fit(self, num_tokens: int) -> bool:
        """Return whether a sequence of `num_tokens` has room when it runs alone."""
        return self.pool.blocks_for(num_tokens) <= min(self.pool.capacity, self.tables.width)

    def add(self, group: SequenceGroup) -> None:
        """Queue a new group behind every other."""
        assert self.can_ever_fit(group.peak_tokens), group.peak_tokens
        group.arrival = self._arrivals
        self._arrivals += 1
        self._waiting.append(group)
        self._num_waiting += 1

    def abort(self, group: SequenceGroup) -> None:
        """End `group` now, whatever its state; it must not be part of an uncommitted plan."""
        if group.state is GroupState.WAITING:
            self._num_waiting -= 1
        elif group.state is GroupState.RUNNING:
            self._free(group)
            self.running.remove(group)
        group.move_to(GroupState.FINISHED)

    def schedule(self) -> StepPlan:
        """Return the next step. It is empty only where nothing is unfinished."""
        preemptions = self.preemptions
        shares = self._schedule_running(self.max_batch_tokens)
        if self.preemptions == preemptions:
            budget = self.max_batch_tokens - sum(count for _, count in shares)
            shares += self._admit(budget)
        return pack(shares, self.tables)

    def commit(self, plan: StepPlan) -> list[SequenceGroup]:
        """Note that `plan` was computed and its tokens appended; return the groups that ended."""
        for sequence, count in zip(plan.sequences, plan.counts.tolist(), strict=True):
            sequence.num_computed += count
        self.pool.finish_copies()
        for sequence in plan.drawing:
            if sequence.finish_reason is not None:
                self._close(sequence)
        ended = [group for group in self.running if not group.unfinished]
        if ended:
            self.running = [group for group in self.running if group.unfinished]
            for group in ended:
                group.move_to(GroupState.FINISHED)
        return ended

    def _schedule_running(self, budget: int) -> list[tuple[Sequence, int]]:
        shares: list[tuple[Sequence, int]] = []
        at = 0
        # The list shrinks from its end while preemption makes room.
        while at < len(self.running) and budget > 0:
            group = self.running[at]
            taken = self._shares(group, budget)
            if not self._make_room(group):
                break
            self._take_blocks(group)
            shares += taken
            budget -= sum(count for _, count in taken)
            at += 1
        return shares

    def _shares(self, group: SequenceGroup, budget: int) -> list[tuple[Sequence, int]]:
        """Give each sequence of `group` its pending tokens, as far as `budget` goes."""
        shares = []
        for sequence in group.unfinished:
            count = min(sequence.pending, budget)
            budget -= count
            if count:
                shares.append((sequence, count))
        return shares

    def _make_room(self, group: SequenceGroup) -> bool:
        """Preempt from the latest arrival until `group` has its blocks; False if it was itself."""
        needed = sum(self._missing(sequence) for sequence in group.unfinished)
        while needed > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            if victim is group:
                return False
        return True

    def _take_blocks(self, group: SequenceGroup) -> None:
        for sequence in group.unfinished:
            self.tables.grow(sequence.row, sequence.num_tokens)

    def _missing(self, sequence: Sequence) -> int:
        return self.tables.missing(sequence.row, sequence.num_tokens)

    def _admit(self, budget: int) -> list[tuple[Sequence, int]]:
        shares: list[tuple[Sequence, int]] = []
        while budget > 0 and self._waiting:
            group = self._waiting[0]
            if group.state is GroupState.FINISHED:  # aborted while it waited
                self._waiting.popleft()
                continue
            if not self._can_admit(group):
                break
            self._waiting.popleft()
            self._start(group)
            taken = self._shares(group, budget)
            shares += taken
            budget -= sum(count for _, count in taken)
        return shares

    def _can_admit(self, group: SequenceGroup) -> bool:
        """Whether there are rows, and blocks for all known tokens of `group`, not its first chunk.

        One block for each running group stays free, so that the newcomer is not preempted at once.
        """
        if self.num_running + len(group.unfinished) > self.max_num_seqs:
            return False
        needed = sum(self.pool.blocks_for(sequence.num_tokens) for sequence in group.unfinished)
        return needed + len(self.running) <= self.pool.num_free

    def _start(self, group: SequenceGroup) -> None:
        self._num_waiting -= 1
        group.move_to(GroupState.RUNNING)
        self.running.append(group)
        for sequence in group.unfinished:
            sequence.row = self.tables.open()
        self._take_blocks(group)

    def _preempt(self, group: SequenceGroup) -> None:
        """Take every block from `group`; what it computed is computed again when it resumes."""
        self._free(group)
        for sequence in group.unfinished:
            sequence.num_computed = 0
        group.move_to(GroupState.WAITING)
        self._waiting.appendleft(group)
        self._num_waiting += 1
        self.preemptions += 1

    def _free(self, group: SequenceGroup) -> None:
        for sequence in group.unfinished:
            self._close(sequence)

    def _close(self, sequence: Sequence) -> None:
        self.tables.close(sequence.row)
        sequence.row = NO_ROW

    def check_integrity(self) -> None:
        """Assert that queues, states, tables and pool agree."""
        self.tables.check_integrity()
        waiting = [group for group in self._waiting if group.state is not GroupState.FINISHED]
        assert len(waiting) == self._num_waiting, (len(waiting), self._num_waiting)
        assert all(group.state is GroupState.WAITING for group in waiting)
        assert all(group.state is GroupState.RUNNING for group in self.running)
        arrivals = [group.arrival for group in [*self.running, *waiting]]
        assert arrivals == sorted(arrivals), "someone overtook"
        rows = [sequence.row for group in self.running for sequence in group.unfinished]
        assert len({*rows, NO_ROW}) == len(rows) + 1, "two sequences share a row, or one has none"
        assert len(rows) + self.tables.num_closed == len(self.tables.sizes), "a row is lost"

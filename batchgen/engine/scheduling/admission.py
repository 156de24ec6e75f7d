"""Admission of groups: the blocks that a group needs now, later, and at most."""

from __future__ import annotations

from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.forecast import expected_peak
from batchgen.engine.scheduling.sequence import SequenceGroup


class Admission:
    """Decides which groups start: enough to fill the pool, but few that are soon preempted."""

    def __init__(self, tables: BlockTables, lengths: LengthBook, *, max_num_seqs: int) -> None:
        self.tables = tables
        self.pool = tables.pool
        self.lengths = lengths
        self.max_num_seqs = max_num_seqs
        #: True if a group must also fit in later steps; tests set it to False to cause preemptions.
        self.looks_ahead = True
        # With so many blocks every sequence fits at its full length, so no forecast is needed.
        self._ample = max_num_seqs * tables.width

    def can_ever_fit(self, group: SequenceGroup) -> bool:
        """Return whether the worst case of `group` fits if it runs alone."""
        longest = self.pool.blocks_for(group.peak_tokens)
        return longest <= self.tables.width and peak_blocks(group, self.pool.block_size) <= (
            self.pool.capacity
        )

    def blocks_to_start(self, group: SequenceGroup, *, cached: int) -> int:
        """Return how many blocks `group` needs for all known tokens, not for the first chunk only.

        `cached` of its blocks are already in use by others and need no free block.
        """
        if group.shared_tokens is None:
            return self.pool.blocks_for(group.computing[0].num_tokens) - cached
        # The others fork from the first sequence later, and share the blocks that are full then.
        shared = group.shared_tokens // self.pool.block_size
        own = (self.pool.blocks_for(each.num_tokens) - shared for each in group.unfinished)
        return shared - cached + sum(own)

    def allows(self, group: SequenceGroup, needed: int, *, running: list[SequenceGroup]) -> bool:
        """Return whether `group`, which needs `needed` blocks now, may join `running`.

        Headroom is kept so that it is not preempted in the next step: about one in `block_size`
        running sequences starts a new block each step, and each of its own may. A group that would
        run alone needs none.
        """
        slots = sum(other.slots for other in running)
        if slots + group.slots > self.max_num_seqs:
            return False
        if not running:
            return needed <= self.pool.num_free
        if needed + self.pool.blocks_for(slots) + group.slots > self.pool.num_free:
            return False
        if self.pool.capacity >= self._ample or not self.looks_ahead:
            return True
        peak = expected_peak(self.lengths, self.pool, [*running, group])
        return peak + needed <= self.pool.capacity


def peak_blocks(group: SequenceGroup, block_size: int) -> int:
    """Return the most blocks that `group` can hold; its sequences share full prompt blocks."""
    shared = group.num_prompt // block_size if group.width > 1 else 0
    each = -(-group.peak_tokens // block_size) - shared
    return shared + group.width * each

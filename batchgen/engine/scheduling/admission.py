"""Whether a group may start: what it needs now, what all will need, and what can never be."""

from __future__ import annotations

from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.forecast import expected_peak
from batchgen.engine.scheduling.sequence import SequenceGroup


class Admission:
    """Keeps the pool full without letting groups in that others must soon make room for."""

    def __init__(self, tables: BlockTables, lengths: LengthBook, *, max_num_seqs: int) -> None:
        self.tables = tables
        self.pool = tables.pool
        self.lengths = lengths
        self.max_num_seqs = max_num_seqs
        #: Whether groups that fit now must also fit later; tests turn it off to make it tight.
        self.looks_ahead = True
        # Where even this many blocks are there, no expectation is needed.
        self._ample = max_num_seqs * tables.width

    def can_ever_fit(self, group: SequenceGroup) -> bool:
        """Return whether the worst case of `group` has room when it runs alone."""
        longest = self.pool.blocks_for(group.peak_tokens)
        return longest <= self.tables.width and peak_blocks(group, self.pool.block_size) <= (
            self.pool.capacity
        )

    def blocks_to_start(self, group: SequenceGroup, *, cached: int) -> int:
        """Return the blocks for all known tokens, not for the first chunk only.

        `cached` blocks of them are in use by others already.
        """
        if group.shared_tokens is None:
            return self.pool.blocks_for(group.computing[0].num_tokens) - cached
        # Others will be forked off the first sequence: what is whole by then is shared.
        shared = group.shared_tokens // self.pool.block_size
        own = (self.pool.blocks_for(each.num_tokens) - shared for each in group.unfinished)
        return shared - cached + sum(own)

    def allows(self, group: SequenceGroup, needed: int, *, running: list[SequenceGroup]) -> bool:
        """Return whether `group`, which needs so many blocks at once, may join `running`.

        Some blocks stay free for the next step, in which one of `block_size` sequences begins a new
        block and each of the newcomer's may: it shall not be preempted at once. Who would run alone
        may always start.
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
    """Return the blocks that `group` holds at most: whole prompt blocks are shared to the end."""
    shared = group.num_prompt // block_size if group.width > 1 else 0
    each = -(-group.peak_tokens // block_size) - shared
    return shared + group.width * each

"""Swapping: keys and values of preempted groups wait in host memory for room on the device.

device pool                          host pool (never larger)
  row 0:  7  3  9  ── out ──►          2  5  1        a shared block moves once, also if the rows
  row 1:  7  3  4  ◄── in ───          2  5  8        are of several groups (found by its key)

Moves are pending on the device as copies are: `outs` run before `ins`, both before copies and
writes. Source: PagedAttention (Kwon et al., SOSP 2023), section 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import NULL_BLOCK, BlockPool, Blocks
from batchgen.engine.scheduling.sequence import NO_ROW, SequenceGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parked:
    """The blocks of one group in the host pool."""

    # The host blocks of each computing sequence, in order.
    tables: list[Blocks]
    # The distinct host blocks of all of them.
    blocks: Blocks


class Swapper:
    """Moves whole groups between the device pool and the host pool."""

    def __init__(self, tables: BlockTables, host: BlockPool | None) -> None:
        """Swap rows of `tables` to `host`; None if no host memory is set aside."""
        self.tables = tables
        self.host = host
        self.outs: list[tuple[int, int]] = []  # (device block, host block)
        self.ins: list[tuple[int, int]] = []  # (host block, device block)
        self.moved = 0  # blocks moved, in both directions
        self._parked: dict[int, Parked] = {}  # {key of the group: its blocks}
        self._leaving: list[Blocks] = []  # host blocks that become free once `ins` ran

    def has_room(self, group: SequenceGroup) -> bool:
        """Return whether the host pool can take the blocks of a running group."""
        return self.host is not None and len(self._distinct(group)) <= self.host.num_free

    def swap_out(self, group: SequenceGroup) -> None:
        """Park the blocks of `group` and close its rows; there must be room."""
        assert self.host is not None
        pool = self.tables.pool
        device = self._distinct(group)
        host = [_transfer(here, pool, self.host, self.outs) for here in device.tolist()]
        place = np.zeros(pool.num_blocks, dtype=np.int32)
        place[device] = host
        self._parked[group.key] = Parked(
            tables=[place[self.tables.of(sequence.table_row)] for sequence in group.computing],
            blocks=place[device],
        )
        for sequence in group.computing:
            self.tables.close(sequence.table_row)
            sequence.table_row = NO_ROW

    def blocks_to_return(self, group: SequenceGroup) -> int:
        """Return the most free device blocks that `swap_in` and all known tokens can need."""
        parked = self._parked[group.key]
        pairs = zip(group.computing, parked.tables, strict=True)
        blocks_for = self.tables.pool.blocks_for
        missing = (blocks_for(group.goal(each)) - len(table) for each, table in pairs)
        return len(parked.blocks) + sum(max(0, count) for count in missing)

    def swap_in(self, group: SequenceGroup) -> None:
        """Move the blocks of `group` back to the device, shared as before."""
        assert self.host is not None
        parked = self._parked.pop(group.key)
        place = np.zeros(self.host.num_blocks, dtype=np.int32)
        for there in parked.blocks.tolist():
            place[there] = _transfer(there, self.host, self.tables.pool, self.ins)
        returned = place[parked.blocks]
        for sequence, table in zip(group.computing, parked.tables, strict=True):
            sequence.table_row = self.tables.open(place[table])
        self.tables.pool.release(returned)  # the rows hold them now
        self._leaving.append(parked.blocks)

    def drop(self, group: SequenceGroup) -> None:
        """Forget a parked group."""
        assert self.host is not None
        self.host.release(self._parked.pop(group.key).blocks)

    def finish(self) -> None:
        """Note that every pending move has run."""
        self.moved += len(self.outs) + len(self.ins)
        self.outs.clear()
        self.ins.clear()
        for blocks in self._leaving:
            assert self.host is not None
            self.host.release(blocks)
        self._leaving.clear()

    def _distinct(self, group: SequenceGroup) -> Blocks:
        tables = [self.tables.of(sequence.table_row) for sequence in group.computing]
        return np.setdiff1d(np.concatenate(tables), [NULL_BLOCK])

    def check_integrity(self, groups: list[SequenceGroup]) -> None:
        """Assert that exactly `groups` are parked, and that the host pool holds nothing else."""
        assert self._parked.keys() == {group.key for group in groups}
        if self.host is not None:
            parked = [parked.blocks for parked in self._parked.values()]
            self.host.check_integrity([*parked, *self._leaving])


def _transfer(
    block: int, source: BlockPool, target: BlockPool, moves: list[tuple[int, int]]
) -> int:
    """Return a block of `target`, with a new reference, that will hold the content of `block`."""
    key = source.key_of(block)
    known = target.cached_block(key) if key is not None else None
    if known is not None:  # it was moved before, or the move is pending
        target.share(np.array([known], dtype=np.int32))
        return known
    fresh = target.allocate(1)[0]
    moves.append((block, fresh))
    if key is not None:
        target.cache_block(fresh, key)
    return fresh

"""Groups whose keys and values wait in host memory until the device has room again.

device pool                          host pool (never larger)
  row 0:  7  3  9  ── out ──►          2  5  1        blocks that the rows of a group share move
  row 1:  7  3  4  ◄── in ───          2  5  8        once and are shared again afterwards

Moves are owed to the device like copies: `outs` run before `ins`, both before copies and writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchgen.engine.blocks import NULL_BLOCK, BlockPool, Blocks
from batchgen.engine.sequence import NO_ROW, SequenceGroup
from batchgen.engine.tables import BlockTables


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parked:
    """The blocks of one group in the host pool."""

    # Of each computing sequence, in order, as host blocks.
    tables: list[Blocks]
    # Every host block of them, once.
    blocks: Blocks
    # {host block: key of what it holds}, where the device block was known by one.
    keys: dict[int, bytes]


class Swapper:
    """Moves whole groups between the device pool and the host pool."""

    def __init__(self, tables: BlockTables, host: BlockPool | None) -> None:
        """Swap rows of `tables` to `host`; None where there is no host memory for it."""
        self.tables = tables
        self.host = host
        self.outs: list[tuple[int, int]] = []  # (device block, host block)
        self.ins: list[tuple[int, int]] = []  # (host block, device block)
        self.moved = 0  # blocks, either way
        self._parked: dict[int, Parked] = {}  # {key of the group: its blocks}
        self._leaving: list[Blocks] = []  # host blocks that are free once `ins` ran

    def has_room(self, group: SequenceGroup) -> bool:
        """Return whether the host pool can take the blocks of a running group."""
        return self.host is not None and len(self._distinct(group)) <= self.host.num_free

    def swap_out(self, group: SequenceGroup) -> None:
        """Park the blocks of `group` and close its rows; there must be room."""
        assert self.host is not None
        device = self._distinct(group)
        host = np.array(self.host.allocate(len(device)), dtype=np.int32)
        self.outs += zip(device.tolist(), host.tolist(), strict=True)
        place = np.zeros(self.tables.pool.num_blocks, dtype=np.int32)
        place[device] = host
        pairs = zip(device.tolist(), host.tolist(), strict=True)
        keys = {there: self.tables.pool.key_of(here) for here, there in pairs}
        self._parked[group.key] = Parked(
            tables=[place[self.tables.of(sequence.row)] for sequence in group.computing],
            blocks=host,
            keys={there: key for there, key in keys.items() if key is not None},
        )
        for sequence in group.computing:
            self.tables.close(sequence.row)
            sequence.row = NO_ROW

    def blocks_to_return(self, group: SequenceGroup) -> int:
        """Return how many device blocks `swap_in` takes from what is free at most."""
        return len(self._parked[group.key].blocks)

    def swap_in(self, group: SequenceGroup) -> None:
        """Bring the blocks of `group` back to the device, sharing as before."""
        assert self.host is not None
        parked = self._parked.pop(group.key)
        place = np.zeros(self.host.num_blocks, dtype=np.int32)
        for there in parked.blocks.tolist():
            place[there] = self._return(there, parked.keys.get(there))
        returned = place[parked.blocks]
        for sequence, table in zip(group.computing, parked.tables, strict=True):
            sequence.row = self.tables.open(place[table])
        self.tables.pool.release(returned)  # the rows hold them now
        self._leaving.append(parked.blocks)

    def drop(self, group: SequenceGroup) -> None:
        """Forget a parked group."""
        assert self.host is not None
        self.host.release(self._parked.pop(group.key).blocks)

    def finish(self) -> None:
        """Note that every move owed has run."""
        self.moved += len(self.outs) + len(self.ins)
        self.outs.clear()
        self.ins.clear()
        for blocks in self._leaving:
            assert self.host is not None
            self.host.release(blocks)
        self._leaving.clear()

    def _distinct(self, group: SequenceGroup) -> Blocks:
        tables = [self.tables.of(sequence.row) for sequence in group.computing]
        return np.setdiff1d(np.concatenate(tables), [NULL_BLOCK])

    def _return(self, there: int, key: bytes | None) -> int:
        """Return a device block, with one reference, that holds or will hold host block `there`."""
        pool = self.tables.pool
        known = pool.known(key) if key is not None else None
        if known is not None:  # others kept it on the device meanwhile
            pool.share(np.array([known], dtype=np.int32))
            return known
        here = pool.allocate(1)[0]
        self.ins.append((there, here))
        if key is not None:
            pool.remember(here, key)
        return here

    def check_integrity(self, groups: list[SequenceGroup]) -> None:
        """Assert that exactly `groups` are parked, and that the host pool holds nothing else."""
        assert self._parked.keys() == {group.key for group in groups}
        if self.host is not None:
            parked = [parked.blocks for parked in self._parked.values()]
            self.host.check_integrity([*parked, *self._leaving])

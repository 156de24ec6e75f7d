"""Block tables: one matrix row per sequence names the blocks that hold its tokens.

    blocks [rows, width]                 block_size 4
row 0:   7   3   9   0   0  …     slots of tokens  0-3 in block 7, 4-7 in 3, 8-11 in 9
row 1:   7   3   5   0   0  …     a fork of row 0 with its own copy of the last block
row 2:   0   0   4   6   0  …     tokens 0-7 have left the window of every layer
row 3:   0   0   0   0   0  …     closed
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from batchgen.engine.scheduling.blocks import NULL_BLOCK, BlockPool, Blocks


class BlockTables:
    """The tables of all running sequences over one pool.

    The kernels read the matrix, so the tables of a step are a slice of it and are not rebuilt.
    """

    def __init__(self, pool: BlockPool, *, rows: int, width: int) -> None:
        self.pool = pool
        self.blocks = np.zeros((rows, width), dtype=np.int32)
        self.sizes = [0] * rows  # blocks of each row, including those that left the window
        self._closed = list(range(rows - 1, -1, -1))

    @property
    def width(self) -> int:
        """The number of blocks that one row can hold."""
        return int(self.blocks.shape[1])

    @property
    def num_closed(self) -> int:
        """The number of rows that `open` can still return."""
        return len(self._closed)

    def open(self, blocks: Blocks | None = None) -> int:
        """Open a row that shares `blocks`, or an empty one, and return it; one must be closed."""
        row = self._closed.pop()
        if blocks is not None and len(blocks):
            self.pool.share(blocks)
            self.blocks[row, : len(blocks)] = blocks
            self.sizes[row] = len(blocks)
        return row

    def close(self, row: int) -> None:
        """Release every block of `row` and close the row."""
        self.pool.release(self.of(row))
        self.blocks[row] = NULL_BLOCK
        self.sizes[row] = 0
        self._closed.append(row)

    def of(self, row: int) -> Blocks:
        """Return a view of the blocks of `row`."""
        return self.blocks[row, : self.sizes[row]]

    def missing(self, row: int, num_tokens: int) -> int:
        """Return how many blocks `grow` would allocate."""
        return max(0, self.pool.blocks_for(num_tokens) - self.sizes[row])

    def grow(self, row: int, num_tokens: int) -> None:
        """Allocate the blocks for the first `num_tokens` tokens of `row`; they must be free."""
        count = self.missing(row, num_tokens)
        if count:
            size = self.sizes[row]
            self.blocks[row, size : size + count] = self.pool.allocate(count)
            self.sizes[row] = size + count

    def fork(self, row: int) -> int:
        """Return a new row that shares every block of `row`."""
        return self.open(self.of(row).copy())

    def copies_to_own(self, writers: list[tuple[int, int]]) -> int:
        """Return how many blocks `copy_on_write` would copy for all (row, position) together.

        If w of the r rows that share a block write to it, w copies are made. If w = r it is one
        less, because the last writer is the only reader left and writes in place.
        """
        size = self.pool.block_size
        written = [
            int(self.blocks[row, position // size]) for row, position in writers if position % size
        ]
        if len(written) == 1:  # nearly always
            return int(self.pool.sharers(written[0]) > 1)
        return sum(
            min(count, self.pool.sharers(block) - 1) for block, count in Counter(written).items()
        )

    def copy_on_write(self, row: int, position: int) -> None:
        """Make the block of token `position` safe to write: copy it first if it is shared.

        Nothing is copied if `position` is the first of a block: `grow` has just allocated it.
        """
        index, slot = divmod(position, self.pool.block_size)
        if slot:
            self.blocks[row, index] = self.pool.copy_on_write(int(self.blocks[row, index]))

    def forget(self, row: int, position: int) -> None:
        """Release the blocks of `row` whose tokens all lie before `position`."""
        before = self.blocks[row, : min(position // self.pool.block_size, self.sizes[row])]
        if len(before) and before[-1] != NULL_BLOCK:
            self.pool.release(before)
            before[:] = NULL_BLOCK

    def utilisation(self, computed: dict[int, int]) -> float:
        """Return filled slots over slots of the blocks in use, 0 to 1.

        `computed` is {row: tokens computed} of all running sequences.
        """
        if self.pool.num_used == 0:
            return 0.0
        size = self.pool.block_size
        filled = np.zeros(self.pool.num_blocks, dtype=np.int32)
        for row, tokens in computed.items():
            blocks = self.of(row)
            slots = np.clip(tokens - size * np.arange(len(blocks)), 0, size)
            np.maximum.at(filled, blocks, slots)  # a shared block is as full as its fullest reader
        return float(filled[1:].sum() / (self.pool.num_used * size))

    def sharing_saving(self) -> float:
        """Return the share of blocks saved because tables share them, 0 to 1."""
        named = int(np.count_nonzero(self.blocks))
        return 1.0 - self.pool.num_used / named if named else 0.0

    def check_integrity(self) -> None:
        """Assert that pool and tables agree and that closed rows are empty."""
        sizes = np.array(self.sizes)
        assert not sizes[self._closed].any(), "a closed row holds blocks"
        within = np.arange(self.width) < sizes[:, None]
        held = self.blocks != NULL_BLOCK
        # Only blocks that left the window may be missing, and these are the first ones.
        whole = np.logical_or.accumulate(held, axis=1) & within
        wrong = np.flatnonzero((whole != held).any(axis=1))
        assert len(wrong) == 0, f"rows {wrong[:8]} have a hole, or blocks past their end"
        self.pool.check_integrity([self.blocks.ravel()])

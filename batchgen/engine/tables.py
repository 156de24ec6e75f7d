"""Block tables: which blocks hold the tokens of each sequence, one row of a matrix a sequence.

    blocks [rows, width]                 block_size 4
row 0:   7   3   9   0   0  …     slots of tokens  0-3 in block 7, 4-7 in 3, 8-11 in 9
row 1:   7   3   5   0   0  …     a fork of row 0 that wrote its own last block
row 2:   0   0   0   0   0  …     closed
"""

from __future__ import annotations

import numpy as np

from batchgen.engine.blocks import BlockPool, Blocks


class BlockTables:
    """The tables of all running sequences over one pool.

    The matrix is what the kernels read, so a step's tables are one slice of it, not a rebuild.
    """

    def __init__(self, pool: BlockPool, *, rows: int, width: int) -> None:
        self.pool = pool
        self.blocks = np.zeros((rows, width), dtype=np.int32)
        self.sizes = [0] * rows  # blocks of each row
        self._closed = list(range(rows - 1, -1, -1))

    @property
    def width(self) -> int:
        """Blocks that one row can hold."""
        return int(self.blocks.shape[1])

    @property
    def num_closed(self) -> int:
        """Rows that `open` can still give."""
        return len(self._closed)

    def open(self) -> int:
        """Return an empty row; there must be a closed one."""
        return self._closed.pop()

    def close(self, row: int) -> None:
        """Drop every block of `row` and take the row back."""
        self.pool.release(self.of(row))
        self.blocks[row] = 0
        self.sizes[row] = 0
        self._closed.append(row)

    def of(self, row: int) -> Blocks:
        """Return a view of the blocks of `row`."""
        return self.blocks[row, : self.sizes[row]]

    def missing(self, row: int, num_tokens: int) -> int:
        """Return how many blocks `grow` would allocate."""
        return max(0, self.pool.blocks_for(num_tokens) - self.sizes[row])

    def grow(self, row: int, num_tokens: int) -> None:
        """Make room in `row` for its first `num_tokens` tokens; the pool must have the blocks."""
        count = self.missing(row, num_tokens)
        if count:
            size = self.sizes[row]
            self.blocks[row, size : size + count] = self.pool.allocate(count)
            self.sizes[row] = size + count

    def fork(self, row: int) -> int:
        """Return a new row that shares every block of `row`."""
        child = self.open()
        self.sizes[child] = self.sizes[row]
        self.blocks[child] = self.blocks[row]
        self.pool.share(self.of(child))
        return child

    def own(self, row: int, position: int) -> None:
        """Make the block of token `position` safe to write: copy it first if it is shared."""
        index = position // self.pool.block_size
        self.blocks[row, index] = self.pool.writable(int(self.blocks[row, index]))

    def utilisation(self, computed: dict[int, int]) -> float:
        """Return filled slots over slots of all blocks in use, for {row: tokens computed}."""
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
        named = sum(self.sizes)
        return 1.0 - self.pool.num_used / named if named else 0.0

    def check_integrity(self) -> None:
        """Assert that pool and tables agree and that closed rows are empty."""
        for row in self._closed:
            assert self.sizes[row] == 0, f"row {row} is closed and holds blocks"
        for row, size in enumerate(self.sizes):
            assert (self.of(row) != 0).all() and not self.blocks[row, size:].any(), f"row {row}"
        self.pool.check_integrity([self.of(row) for row in range(len(self.sizes))])

"""The KV blocks of a pool by number: who is free, who is shared, what must be copied.

A block number is a row of the device tensor `[num_blocks, E]` (see `kvcache`); nothing here
touches it. Block 0 is the null block: it is never given out, whatever is written there is lost.

    references   0 = free · 1 = one table (or copy) · n = shared, read-only until copied
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NULL_BLOCK = 0

Blocks = npt.NDArray[np.int32]


class BlockPool:
    """Reference-counted blocks, with copy-on-write.

    `copies` are owed to the device: they must run before anything of this step is written, and
    `finish_copies` must be called once they ran. Until then each keeps a reference on its source
    and one on its destination, so neither can be freed and given out again under it.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        assert num_blocks > 1, "a pool is the null block and at least one other"
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.references = np.zeros(num_blocks, dtype=np.int32)
        self.references[NULL_BLOCK] = 1
        self.copies: list[tuple[int, int]] = []  # (source, destination)
        self.copies_made = 0
        self._owed: Counter[int] = Counter()  # {source: copies of it}
        # A stack: the block freed last is used next, so the touched part of the pool stays small.
        self._free = list(range(num_blocks - 1, NULL_BLOCK, -1))

    @property
    def capacity(self) -> int:
        """Blocks that can ever be in use at once."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can still give."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks with a reference, the null block apart."""
        return self.capacity - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Return `count` free blocks, each with one reference now; there must be that many."""
        assert 0 <= count <= self.num_free, (count, self.num_free)
        if count == 0:
            return []
        taken = self._free[-count:]
        del self._free[-count:]
        taken.reverse()
        self.references[taken] = 1
        return taken

    def share(self, blocks: Blocks) -> None:
        """Add a reference to each of `blocks` (distinct; null blocks are passed over)."""
        self.references[blocks[blocks != NULL_BLOCK]] += 1

    def release(self, blocks: Blocks) -> None:
        """Drop a reference of each of `blocks` (distinct; null blocks are passed over)."""
        blocks = blocks[blocks != NULL_BLOCK]
        self.references[blocks] -= 1
        freed = blocks[self.references[blocks] == 0]
        # Tail first onto the stack: a chain of blocks is given out again head first.
        self._free.extend(freed[::-1].tolist())

    def writable(self, block: int) -> int:
        """Return a block to write instead of `block`: itself, or a fresh one if it is shared.

        The writer's reference on a shared block passes to the copy that is now owed. Of n sharers
        that all write, the last finds itself alone with n - 1 copies and writes in place.
        """
        if self.references[block] - self._owed[block] == 1:
            return block
        fresh = self.allocate(1)[0]
        self.references[fresh] += 1
        self.copies.append((block, fresh))
        self._owed[block] += 1
        return fresh

    def finish_copies(self) -> None:
        """Note that every copy owed has run."""
        for pair in self.copies:
            self.release(np.array(pair, dtype=np.int32))
        self.copies_made += len(self.copies)
        self.copies.clear()
        self._owed.clear()

    def check_integrity(self, tables: Sequence[Blocks] = ()) -> None:
        """Assert that every block is either free or counted, once for each table that names it."""
        free = np.array(self._free, dtype=np.int64)
        assert len(np.unique(free)) == len(free), "a block is free twice"
        assert NULL_BLOCK not in free and self.references[NULL_BLOCK] == 1
        assert not self.references[free].any(), "a free block has references"
        used = int(np.count_nonzero(self.references)) - 1
        assert used == self.num_used, (used, self.num_used, self.num_free)
        held = [np.array(self.copies, dtype=np.int32).ravel(), *tables]
        named = np.concatenate(held)
        counts = np.bincount(named[named != NULL_BLOCK], minlength=self.num_blocks)
        counts[NULL_BLOCK] = 1
        wrong = np.flatnonzero(counts != self.references)
        assert len(wrong) == 0, f"blocks {wrong[:8]} have {self.references[wrong[:8]]} references"

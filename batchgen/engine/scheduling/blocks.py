"""The KV blocks of a pool by number: who is free, who is shared, what must be copied.

A block number is a row of the device tensor `[num_blocks, E]` (see `kvcache`); nothing here
touches it. Block 0 is the null block: it is never given out, whatever is written there is lost.

    references   0 = free · 1 = one table (or copy) · n = shared, read-only until copied

A free block may still be known by what it holds, its key, until it is given out again:

    given out first                                                              last
    free   [ no key, freed last … first ][ key, least recently used … most ]  kept [ pinned key ]
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

NULL_BLOCK = 0

Blocks = npt.NDArray[np.int32]


class BlockPool:
    """Reference-counted blocks, with copy-on-write and a memory of what free blocks hold.

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
        self._free = OrderedDict.fromkeys(range(1, num_blocks))
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._pins: Counter[bytes] = Counter()  # {key: who wants it kept}

    @property
    def capacity(self) -> int:
        """Blocks that can ever be in use at once."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can still give."""
        return len(self._free) + len(self._kept)

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
        taken = [self._next_free() for _ in range(count)]
        self.references[taken] = 1
        return taken

    def share(self, blocks: Blocks) -> None:
        """Add a reference to each of `blocks` (distinct; null blocks are passed over).

        A free one is in use again, with what it holds.
        """
        blocks = blocks[blocks != NULL_BLOCK]
        for block in blocks[self.references[blocks] == 0].tolist():
            (self._free if block in self._free else self._kept).pop(block)
        self.references[blocks] += 1

    def release(self, blocks: Blocks) -> None:
        """Drop a reference of each of `blocks` (distinct; null blocks are passed over)."""
        blocks = blocks[blocks != NULL_BLOCK]
        self.references[blocks] -= 1
        # Tail first: of a chain of blocks the tail is forgotten first, the head is of most use.
        for block in blocks[self.references[blocks] == 0][::-1].tolist():
            self._put_back(block)

    def sharers(self, block: int) -> int:
        """Return the tables that read `block`: its references but for the copies owed of it."""
        return int(self.references[block]) - self._owed[block]

    def copy_on_write(self, block: int) -> int:
        """Return a block to write instead of `block`: itself, or a fresh one if it is shared.

        The writer's reference on a shared block passes to the copy that is now owed. Of n sharers
        that all write, the last finds itself alone with n - 1 copies and writes in place.
        """
        if self.sharers(block) == 1:
            assert block not in self._key_of, f"block {block} is full and known by what it holds"
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

    def cache_block(self, block: int, key: bytes) -> None:
        """Know a used, full block by `key` from now on, unless another one is known by it."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def cached_block(self, key: bytes) -> int | None:
        """Return the block that is known by `key`, used or free, None if there is none."""
        return self._block_of.get(key)

    def key_of(self, block: int) -> bytes | None:
        """Return the key that `block` is known by, None if there is none."""
        return self._key_of.get(block)

    def pin(self, keys: Iterable[bytes]) -> None:
        """Let the blocks known by `keys` be forgotten last of all."""
        for key in keys:
            self._pins[key] += 1
            block = self._block_of.get(key, NULL_BLOCK)
            if block in self._free:
                del self._free[block]
                self._kept[block] = None

    def unpin(self, keys: Iterable[bytes]) -> None:
        """Take one pin off each of `keys`."""
        for key in keys:
            self._pins[key] -= 1
            if self._pins[key] == 0:
                del self._pins[key]
                block = self._block_of.get(key, NULL_BLOCK)
                if block in self._kept:
                    del self._kept[block]
                    self._free[block] = None

    def _next_free(self) -> int:
        block, _ = (self._free or self._kept).popitem(last=False)
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]
        return block

    def _put_back(self, block: int) -> None:
        key = self._key_of.get(block)
        if key in self._pins:
            self._kept[block] = None
            return
        self._free[block] = None
        if key is None:
            # The block freed last is used next, so the touched part of the pool stays small.
            self._free.move_to_end(block, last=False)

    def check_integrity(self, tables: Sequence[Blocks] = ()) -> None:
        """Assert that every block is either free or counted, once for each table that names it."""
        free = np.array([*self._free, *self._kept], dtype=np.int64)
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
        assert {block: key for key, block in self._block_of.items()} == self._key_of
        assert all(self._key_of.get(block) in self._pins for block in self._kept)

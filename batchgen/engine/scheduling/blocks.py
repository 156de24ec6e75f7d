"""The KV blocks of a pool, by number: which are free, which are shared, which must be copied.

A block number is a row of the device tensor `[num_blocks, E]` (see `kvcache`), which this module
does not touch. Block 0 is the null block: it is never allocated, and its content is never used.

    references   0 = free · 1 = one table (or copy) · n = shared, read-only until copied

A free block keeps its content, and the key of that content, until it is allocated again:

    allocated first                                                              last
    free   [ no key, freed last … first ][ key, least recently used … most ]  kept [ pinned key ]

Source of paging and copy-on-write: PagedAttention (Kwon et al., SOSP 2023), sections 4.3 and 4.4.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

NULL_BLOCK = 0

Blocks = npt.NDArray[np.int32]


class BlockPool:
    """Reference-counted blocks with copy-on-write and a cache of the contents of free blocks.

    `copies` are pending on the device. They must run before the step writes anything, and
    `finish_copies` must be called afterwards. Until then each holds a reference to its source
    and one to its destination, so that neither is allocated again before the copy ran.
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
        self._pins: Counter[bytes] = Counter()  # {key: number of pins}

    @property
    def capacity(self) -> int:
        """The number of blocks that can be in use at once."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """The number of blocks that `allocate` can still return."""
        return len(self._free) + len(self._kept)

    @property
    def num_used(self) -> int:
        """The number of blocks with a reference, without the null block."""
        return self.capacity - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Take `count` free blocks, give each one reference and return them; they must be free."""
        assert 0 <= count <= self.num_free, (count, self.num_free)
        taken = [self._next_free() for _ in range(count)]
        self.references[taken] = 1
        return taken

    def share(self, blocks: Blocks) -> None:
        """Add a reference to each of `blocks` (distinct; null blocks are skipped).

        A free block is in use again, with its content.
        """
        blocks = blocks[blocks != NULL_BLOCK]
        for block in blocks[self.references[blocks] == 0].tolist():
            (self._free if block in self._free else self._kept).pop(block)
        self.references[blocks] += 1

    def release(self, blocks: Blocks) -> None:
        """Drop a reference of each of `blocks` (distinct; null blocks are skipped)."""
        blocks = blocks[blocks != NULL_BLOCK]
        self.references[blocks] -= 1
        # Last block first: the end of a chain is reused first, its beginning is useful to more.
        for block in blocks[self.references[blocks] == 0][::-1].tolist():
            self._put_back(block)

    def sharers(self, block: int) -> int:
        """Return how many tables read `block`: its references without those of pending copies."""
        return int(self.references[block]) - self._owed[block]

    def copy_on_write(self, block: int) -> int:
        """Return the block to write instead of `block`: itself, or a new copy if it is shared.

        The writer's reference to a shared block passes to the pending copy. If all n sharers
        write, n - 1 copies are made and the last sharer writes in place.
        """
        if self.sharers(block) == 1:
            assert block not in self._key_of, f"block {block} is full and cached"
            return block
        fresh = self.allocate(1)[0]
        self.references[fresh] += 1
        self.copies.append((block, fresh))
        self._owed[block] += 1
        return fresh

    def finish_copies(self) -> None:
        """Note that every pending copy has run."""
        for pair in self.copies:
            self.release(np.array(pair, dtype=np.int32))
        self.copies_made += len(self.copies)
        self.copies.clear()
        self._owed.clear()

    def cache_block(self, block: int, key: bytes) -> None:
        """Cache a used, full block under `key`, unless the block or the key is already cached."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def cached_block(self, key: bytes) -> int | None:
        """Return the block that is cached under `key`, used or free; None if there is none."""
        return self._block_of.get(key)

    def key_of(self, block: int) -> bytes | None:
        """Return the key that `block` is cached under, None if it has none."""
        return self._key_of.get(block)

    def pin(self, keys: Iterable[bytes]) -> None:
        """Pin the blocks cached under `keys`: `allocate` takes them only after all other blocks."""
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
            # The block freed last is allocated next, so the touched part of the pool stays small.
            self._free.move_to_end(block, last=False)

    def check_integrity(self, tables: Sequence[Blocks] = ()) -> None:
        """Assert that each block is free, or has one reference per table or copy that names it."""
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

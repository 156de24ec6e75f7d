"""The prefix cache: prompts that begin alike share full blocks, found by a hash of their tokens.

    tokens     [ 0 … 15 ][ 16 … 31 ][ 32 … 47 ][ 48 …        block_size 16
    keys         k0 ───────► k1 ───────► k2                   k1 = hash(k0, tokens 16-31)

The key of a block is a hash of its tokens and of all tokens before them, so blocks with the same
key hold the same data. The chain starts from the model and the salt, so prompts with different
models or salts share nothing.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from batchgen.engine.scheduling.blocks import BlockPool, Blocks
from batchgen.engine.scheduling.sequence import Sequence, SequenceGroup, common_length

DIGEST = 32  # bytes of a key: as strong as SHA-256, so that two texts never get the same key
JOBS = 256  # jobs whose common prefix is kept at a time


@dataclass(slots=True, kw_only=True)
class JobPrefix:
    """The common prefix of one job's prompts, as keys of full blocks."""

    # All keys of the last prompt.
    last: list[bytes]
    # The common prefix of the last two consecutive prompts that had one.
    pinned: list[bytes]


class PrefixCache:
    """Finds cached blocks that hold the beginning of a prompt, and caches full blocks."""

    def __init__(self, pool: BlockPool, *, model: str) -> None:
        """Cache in `pool`; `model` identifies the weights and everything applied to them."""
        self.pool = pool
        self.hit_tokens = 0  # prompt tokens found in the cache, so not computed
        self.asked_tokens = 0  # prompt tokens looked up
        self._root = _digest(b"", model.encode())
        self._jobs: OrderedDict[str, JobPrefix] = OrderedDict()

    def add(self, group: SequenceGroup) -> None:
        """Add the prompt of `group`, and pin the common prefix of its job's prompts."""
        self._extend(group.sequences[0], group.salt)
        if group.job:
            self._keep_common(group.job, group.sequences[0].keys.copy())

    def match(self, sequence: Sequence, salt: str, *, limit: int) -> Blocks:
        """Return the cached blocks that hold the first tokens of `sequence`; add no reference.

        Only full blocks within the first `limit` tokens are returned.
        """
        self._extend(sequence, salt)
        found: list[int] = []
        for key in sequence.keys[: limit // self.pool.block_size]:
            block = self.pool.cached_block(key)
            if block is None:
                break
            found.append(block)
        return np.array(found, dtype=np.int32)

    def count(self, group: SequenceGroup) -> None:
        """Add a group, admitted for the first time, to `hit_tokens` and `asked_tokens`."""
        self.hit_tokens += group.cached_tokens or 0
        self.asked_tokens += group.num_prompt

    def cache_blocks(
        self, sequence: Sequence, salt: str, blocks: Blocks, *, start: int, end: int
    ) -> None:
        """Cache the `blocks` that tokens `start` to `end` of `sequence` fill.

        The tokens may still be computed in the present step: every layer writes all keys and
        values of a step before it attends.
        """
        filled = slice(start // self.pool.block_size, end // self.pool.block_size)
        if filled.start == filled.stop:
            return
        self._extend(sequence, salt)
        for block, key in zip(blocks[filled].tolist(), sequence.keys[filled], strict=True):
            self.pool.cache_block(block, key)

    def _extend(self, sequence: Sequence, salt: str) -> None:
        """Bring the keys of `sequence` up to its last full block."""
        size, keys = self.pool.block_size, sequence.keys
        known, full = len(keys), sequence.num_tokens // size
        if known == full:
            return
        last = keys[-1] if keys else _digest(self._root, salt.encode())
        for start, end in pairwise(range(known * size, full * size + 1, size)):
            last = _digest(last, array("q", sequence.tokens[start:end]).tobytes())
            keys.append(last)

    def _keep_common(self, job: str, keys: list[bytes]) -> None:
        prefix = self._jobs.pop(job, None) or JobPrefix(last=[], pinned=[])
        self._jobs[job] = prefix
        if len(self._jobs) > JOBS:
            _, forgotten = self._jobs.popitem(last=False)
            self.pool.unpin(forgotten.pinned)
        common = keys[: common_length([prefix.last, keys])]
        # If two neighbours have nothing in common, the other prompts of the job still may.
        if common and common != prefix.pinned:
            self.pool.pin(common)
            self.pool.unpin(prefix.pinned)
            prefix.pinned = common
        prefix.last = keys


def _digest(parent: bytes, data: bytes) -> bytes:
    return blake2b(data, key=parent, digest_size=DIGEST).digest()

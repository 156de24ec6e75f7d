"""Prompts that begin alike share blocks: which full blocks hold which tokens.

    tokens     [ 0 … 15 ][ 16 … 31 ][ 32 … 47 ][ 48 …        block_size 16
    keys         k0 ───────► k1 ───────► k2                   k1 = hash(k0, tokens 16-31)

A key stands for a block's tokens and for all before them, so equal keys mean equal keys and values.
The chain starts from the model and the salt: nothing is shared across either.
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

DIGEST = 32  # bytes of a key: as strong as SHA-256, so that no two texts are ever mixed up
JOBS = 256  # whose common prefix is kept at a time


@dataclass(slots=True, kw_only=True)
class JobPrefix:
    """What the prompts of one job begin with, as keys of full blocks."""

    # Of the last prompt, whole.
    last: list[bytes]
    # What it had in common with the one before, or two neighbours before them.
    pinned: list[bytes]


class PrefixCache:
    """Finds the blocks that already hold the beginning of a prompt, and remembers full blocks."""

    def __init__(self, pool: BlockPool, *, model: str) -> None:
        """Cache in `pool`; `model` identifies the weights and whatever is applied to them."""
        self.pool = pool
        self.hit_tokens = 0  # tokens that need not be computed
        self.asked_tokens = 0  # tokens of the prompts that were looked up
        self._root = _digest(b"", model.encode())
        self._jobs: OrderedDict[str, JobPrefix] = OrderedDict()

    def add(self, group: SequenceGroup) -> None:
        """Take in a new prompt: what the prompts of its job begin with is forgotten last."""
        self._extend(group.sequences[0], group.salt)
        if group.job:
            self._keep_common(group.job, group.sequences[0].keys.copy())

    def match(self, sequence: Sequence, salt: str, *, limit: int) -> Blocks:
        """Return the known blocks that hold the first tokens of `sequence`, not referenced yet.

        Only whole blocks within the first `limit` tokens.
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
        """Note what was found of a group that is admitted for the first time."""
        self.hit_tokens += group.cached_tokens or 0
        self.asked_tokens += group.num_prompt

    def cache_blocks(
        self, sequence: Sequence, salt: str, blocks: Blocks, *, start: int, end: int
    ) -> None:
        """Know the `blocks` that tokens `start` to `end` of `sequence` fill by what they hold.

        This may come before they are computed, if they are in this very step: every layer writes
        all keys and values of a step before it attends.
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
        # A prompt that begins otherwise than the one before it says nothing about the others.
        if common and common != prefix.pinned:
            self.pool.pin(common)
            self.pool.unpin(prefix.pinned)
            prefix.pinned = common
        prefix.last = keys


def _digest(parent: bytes, data: bytes) -> bytes:
    return blake2b(data, key=parent, digest_size=DIGEST).digest()

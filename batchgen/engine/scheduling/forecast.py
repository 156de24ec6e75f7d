"""How many blocks will be in use, as far as can be told.

After t more steps a group either has grown by t tokens a sequence, or has ended and given back what
is its own; how likely either is, the lengths of its job tell. The sum over all groups, largest over
t, is what the pool must hold. Where answers are short beside their prompts that is what is in use
now, where they are long it is far more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.sequence import SequenceGroup

STEPS = 24  # points in time that are looked at, ever farther apart, beside the ends that are known
# Beams have a common ancestor so many tokens back, nearly always: all else they share, however long
# they are. See benchmarks/memory.py.
TRUNK = 32

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def expected_peak(book: LengthBook, pool: BlockPool, groups: list[SequenceGroup]) -> int:
    """Return the blocks in use now and then, whichever is more, if `groups` are all that run."""
    ahead = _times(groups)
    likely = book.growing(groups, ahead)
    grown = np.array([_growth(group, ahead) for group in groups])
    own = np.array([_own_tokens(group) for group in groups])[:, None]
    tokens = (likely * grown - (1 - likely) * own).sum(0)
    return pool.num_used + max(0, int(np.ceil(tokens.max() / pool.block_size)))


def _times(groups: list[SequenceGroup]) -> Ints:
    """Return the numbers of steps ahead that are looked at.

    Between ends that are known the use only grows, so the last step before each of them is one.
    """
    left = np.array([group.max_tokens - group.num_generated for group in groups])
    known = left[[group.params.ignore_eos for group in groups]] - 1
    spread = np.geomspace(1, max(1, left.max()), STEPS).astype(np.int64)
    return np.unique(np.concatenate([spread, known]))


def _growth(group: SequenceGroup, ahead: Ints) -> Ints:
    """Return the tokens that `group` holds more after each of `ahead` steps."""
    if group.params.num_beams == 1:
        return group.slots * ahead
    now = group.num_generated
    branches: Ints = np.minimum(now + ahead, TRUNK) - min(now, TRUNK)
    return ahead + (group.slots - 1) * branches


def _own_tokens(group: SequenceGroup) -> int:
    """Return the tokens whose blocks come free when `group` ends; those of others' do not."""
    prompt = group.num_prompt - (group.cached_tokens or 0)
    now = group.num_generated
    if group.params.num_beams > 1:
        return max(0, prompt) + now + (group.slots - 1) * min(now, TRUNK)
    return max(0, prompt) + sum(sequence.num_generated for sequence in group.unfinished)

"""A forecast of the blocks that will be in use.

After t more steps, a group has either grown by t tokens a sequence, or it has ended and returned
its own blocks. The probabilities of both come from the answer lengths of its job. The pool must
hold the sum over all groups, at the t where it is largest. If answers are short beside their
prompts, this is about the present use; if they are long, it is far more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.sequence import SequenceGroup

STEPS = 24  # points in time to check, at growing distances, besides the known ends of answers
# Beams nearly always have a common ancestor at most so many tokens back, and share all before it,
# however long they are. See benchmarks/memory.py.
TRUNK = 32

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def expected_peak(book: LengthBook, pool: BlockPool, groups: list[SequenceGroup]) -> int:
    """Return the most blocks expected in use, now or later, if only `groups` run."""
    ahead = _times(groups)
    likely = book.growing(groups, ahead)
    grown = np.array([_growth(group, ahead) for group in groups])
    own = np.array([_own_tokens(group) for group in groups])[:, None]
    tokens = (likely * grown - (1 - likely) * own).sum(0)
    return pool.num_used + max(0, int(np.ceil(tokens.max() / pool.block_size)))


def _times(groups: list[SequenceGroup]) -> Ints:
    """Return the numbers of steps ahead to check.

    Between known ends the use only grows, so the last step before each known end is one of them.
    """
    left = np.array([group.max_tokens - group.num_generated for group in groups])
    known = left[[group.params.ignore_eos for group in groups]] - 1
    spread = np.geomspace(1, max(1, left.max()), STEPS).astype(np.int64)
    return np.unique(np.concatenate([spread, known]))


def _growth(group: SequenceGroup, ahead: Ints) -> Ints:
    """Return how many more tokens `group` holds after each of `ahead` steps, [T]."""
    if group.params.num_beams == 1:
        return group.slots * ahead
    now = group.num_generated
    branches: Ints = np.minimum(now + ahead, TRUNK) - min(now, TRUNK)
    return ahead + (group.slots - 1) * branches


def _own_tokens(group: SequenceGroup) -> int:
    """Return how many tokens' blocks become free when `group` ends; cached ones are not counted."""
    prompt = group.num_prompt - (group.cached_tokens or 0)
    now = group.num_generated
    if group.params.num_beams > 1:
        return max(0, prompt) + now + (group.slots - 1) * min(now, TRUNK)
    return max(0, prompt) + sum(sequence.num_generated for sequence in group.unfinished)

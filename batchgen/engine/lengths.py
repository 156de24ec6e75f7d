"""How long answers will be, learned from those that ended, and how many blocks that will take.

The pool is neither hoarded for `max_tokens`, which few answers reach, nor filled so far that rows
give their blocks up again: a group is admitted where the expected peak of all groups fits.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict, deque

import numpy as np
import numpy.typing as npt

from batchgen.engine.blocks import BlockPool
from batchgen.engine.sequence import SequenceGroup

REMEMBERED = 512  # answers of one job
JOBS = 256  # with lengths at a time
UNKNOWN = 256  # tokens expected of an answer while none of its job has ended


class Lengths:
    """The answer lengths of one job, in tokens, as a distribution."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=REMEMBERED)
        self._sorted: list[int] = []
        self._means: npt.NDArray[np.float64] | None = None  # of _sorted[i:], for each i

    def observe(self, length: int) -> None:
        """Take in an answer that ended."""
        if len(self._recent) == REMEMBERED:
            del self._sorted[bisect_right(self._sorted, self._recent[0]) - 1]
        self._recent.append(length)
        insort(self._sorted, length)
        self._means = None

    def expect(self, generated: int) -> float:
        """Return the expected length of an answer that has `generated` tokens and goes on."""
        if not self._sorted:
            return max(UNKNOWN, 2 * generated)
        longer = bisect_right(self._sorted, generated)
        if longer == len(self._sorted):  # longer than any so far: it has no end in sight
            return 2 * generated
        if self._means is None:
            sums = np.cumsum(self._sorted[::-1])[::-1]
            self._means = sums / np.arange(len(sums), 0, -1)
        return float(self._means[longer])


class LengthBook:
    """The lengths of all jobs."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Lengths] = OrderedDict()

    def observe(self, group: SequenceGroup) -> None:
        """Learn from a group that ended."""
        lengths = self._of(group.job)
        for sequence in group.sequences:
            lengths.observe(sequence.num_generated)

    def remaining(self, group: SequenceGroup) -> int:
        """Return how many tokens each sequence of `group` is expected to draw yet, at least one."""
        generated = max(sequence.num_generated for sequence in group.sequences)
        limit = group.max_tokens
        expected = limit if group.params.ignore_eos else self._of(group.job).expect(generated)
        return max(1, int(min(expected, limit)) - generated)

    def _of(self, job: str) -> Lengths:
        lengths = self._jobs.pop(job, None) or Lengths()
        self._jobs[job] = lengths
        if len(self._jobs) > JOBS:
            self._jobs.popitem(last=False)
        return lengths


def expected_peak(book: LengthBook, pool: BlockPool, groups: list[SequenceGroup]) -> int:
    """Return the most blocks that will be in use, if every group ends where it is expected to.

        in use now ──► grows by one token for each growing sequence and step
                       first end: the group's own blocks come back, the others grow on
                       second end …                                         ──► last end

    Between two ends the growth is linear, so the peak is just before one of them. Shared blocks
    are in what is used now and never given back here, which errs on the safe side.
    """
    left = np.array([book.remaining(group) for group in groups])
    width = np.array([group.slots for group in groups])
    own = np.array([_own_tokens(group) for group in groups])
    order = np.argsort(left)
    left, width, own = left[order], width[order], own[order]
    growing = np.cumsum(width[::-1])[::-1]  # sequences that live until the i-th end
    given_back = np.concatenate([[0], np.cumsum(own)[:-1]])
    tokens = left * growing - given_back
    # Each growing sequence also has a last block that is half empty.
    blocks = tokens / pool.block_size + growing / 2
    return pool.num_used + int(np.ceil(blocks.max()))


def _own_tokens(group: SequenceGroup) -> int:
    """Tokens whose blocks come free when `group` ends."""
    first = group.sequences[0]
    answers = sum(sequence.num_generated for sequence in group.unfinished)
    return max(0, first.num_prompt - (group.cached_tokens or 0) + answers)

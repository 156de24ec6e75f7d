"""A forecast of answer lengths, learned from the answers that ended.

share of the job's answers that are longer than
1.0 ─┐
     └──┐   an answer with g tokens, which is one of these, is still growing after t more
        └─┬────── with the probability  longer than g + t  /  longer than g
          g      └────────────
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict, deque

import numpy as np
import numpy.typing as npt

from batchgen.engine.scheduling.sequence import SequenceGroup

REMEMBERED = 512  # answers of one job
JOBS = 256  # with lengths at a time
UNKNOWN = 256  # assumed mean tokens of an answer until one of the job has ended

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Lengths:
    """The answer lengths of one job, in tokens, as a distribution."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=REMEMBERED)
        self._sorted: list[int] = []

    def observe(self, length: int) -> None:
        """Add the length of an answer that ended."""
        if len(self._recent) == REMEMBERED:
            del self._sorted[bisect_right(self._sorted, self._recent[0]) - 1]
        self._recent.append(length)
        insort(self._sorted, length)

    def growing(self, generated: Ints, ahead: Ints) -> Floats:
        """Return the probabilities [G, T] that answers get more than `ahead` [T] further tokens.

        `generated` [G] are their tokens so far. If an answer is longer than all known ones, its
        remaining length is taken as exponential with its present length as the mean.
        """
        known = np.array(self._sorted, dtype=np.int64)
        longer = len(known) - known.searchsorted(generated, side="right")
        beyond = len(known) - known.searchsorted(generated[:, None] + ahead, side="right")
        mean = np.maximum(generated, 1 if len(known) else UNKNOWN)
        unseen = np.exp(-ahead / mean[:, None])
        seen = beyond / np.maximum(longer, 1)[:, None]
        return np.where(longer[:, None] > 0, seen, unseen)


class LengthBook:
    """The answer lengths of the `JOBS` jobs that were used last."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Lengths] = OrderedDict()

    def observe(self, group: SequenceGroup) -> None:
        """Add the lengths of a group, unless it failed or `ignore_eos` fixed its length."""
        if group.failed or group.params.ignore_eos:
            return
        lengths = self._of(group.job)
        for sequence in group.sequences:
            lengths.observe(sequence.num_generated)

    def growing(self, groups: list[SequenceGroup], ahead: Ints) -> Floats:
        """Return the probabilities [G, T] that `groups` still run after `ahead` [T] more steps."""
        generated = np.array([group.num_generated for group in groups])
        limits = np.array([group.max_tokens for group in groups])
        free = np.array([not group.params.ignore_eos for group in groups])
        likely = np.ones((len(groups), len(ahead)))
        for job in {group.job for group in groups}:
            of_job = free & np.array([group.job == job for group in groups])
            likely[of_job] = self._of(job).growing(generated[of_job], ahead)
        return np.where(generated[:, None] + ahead < limits[:, None], likely, 0.0)

    def _of(self, job: str) -> Lengths:
        lengths = self._jobs.pop(job, None) or Lengths()
        self._jobs[job] = lengths
        if len(self._jobs) > JOBS:
            self._jobs.popitem(last=False)
        return lengths

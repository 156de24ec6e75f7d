"""Random numbers that are a function of (seed, sequence, position) only.

So a sample is the same alone, in any batch, after a preemption, on another worker and after a
resume.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

# Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014), SplitMix64:
# an odd step of the counter, and a mixing function with full avalanche.
STEP = np.uint64(0x9E3779B97F4A7C15)
MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))
BITS = 48  # of a uniform number; few enough that number * sum, rounded, stays below the sum


def uniforms(seeds: Words, sequences: Words, positions: Words) -> npt.NDArray[np.float64]:
    """Return a float64 in [0, 1) for each (seed, index in the group, position), [N] each."""
    state = _mix(seeds + STEP)
    for counter in (sequences, positions):
        state = _mix(state + (counter + np.uint64(1)) * STEP)
    return (state >> np.uint64(64 - BITS)).astype(np.float64) * 2.0**-BITS


def as_word(seed: int) -> int:
    """Return a seed as unsigned 64 bits, as `uniforms` needs it."""
    return seed % 2**64


def _mix(words: Words) -> Words:
    for shift, factor in MIX:
        words = (words ^ (words >> np.uint64(shift))) * factor
    return words ^ (words >> np.uint64(31))

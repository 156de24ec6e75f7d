"""Requests as the PagedAttention paper describes its two datasets, as lengths only.

The paper (arXiv 2309.06180, section 6.1) gives the mean lengths. Their spread it only draws, so it
is assumed: log-normal, with a standard deviation equal to the mean, which is also that of the
distribution that assumes least about a positive length of known mean (the exponential). Prompt and
answer are independent. The lengths are the distribution's quantiles in random order, so that a few
hundred requests have its mean, and what the context cuts off is all that is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

SIGMA = math.sqrt(math.log(2.0))  # of the logarithm: standard deviation = mean, 0.83
CONTEXT = 2048  # tokens of prompt and answer, as in the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Mean lengths, in tokens."""

    name: str
    prompt: float
    answer: float


ALPACA = Dataset(name="alpaca", prompt=19, answer=58)
SHAREGPT = Dataset(name="sharegpt", prompt=161, answer=338)
DATASETS = {dataset.name: dataset for dataset in (ALPACA, SHAREGPT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, in tokens; each of its answers has the same length, as in the paper."""

    key: int
    prompt: int
    answer: int


def draw(dataset: Dataset, count: int, *, seed: int, sigma: float = SIGMA) -> list[Request]:
    """Return `count` requests; what does not fit into the context is cut off the answer."""
    rng = np.random.default_rng(seed)
    quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    spread = np.exp(sigma * np.array(quantiles) - sigma**2 / 2)  # of mean 1
    lengths = [rng.permutation(spread) * mean for mean in (dataset.prompt, dataset.answer)]
    lengths = [np.maximum(1, np.rint(one)).astype(int) for one in lengths]
    prompts = np.minimum(lengths[0], CONTEXT - 1)
    answers = np.minimum(lengths[1], CONTEXT - prompts)
    return [
        Request(key=key, prompt=prompt, answer=answer)
        for key, (prompt, answer) in enumerate(zip(prompts.tolist(), answers.tolist(), strict=True))
    ]

"""From logits to tokens, all rows of a step at once.

    logits [N, V] ──► greedy rows: argmax
                 └──► others: / temperature ─► top_k ─► top_p ─► draw by one random number a row

What is kept by top_k and top_p is what reaches a threshold logit, so equally likely tokens stay or
go together and a draw does not depend on how ties were sorted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from batchgen.engine.randomness import as_word, uniforms
from batchgen.engine.sequence import Sequence, SequenceGroup
from batchgen.io.params import SamplingParams

CANDIDATES = 256  # most likely tokens looked at first for a threshold
WIDER = 16  # times more candidates where those do not reach it
ROWS = 16  # rows drawn at a time: bounds the float64 work space


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One token for each row, [N] each."""

    tokens: npt.NDArray[np.int64]
    # Of the token, under the model's own distribution: no temperature, nothing cut off.
    logprobs: npt.NDArray[np.float32]
    # False where the logits were no numbers; token and logprob mean nothing there.
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """How each row of logits is to be decoded, [N] each."""

    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int64]
    top_p: npt.NDArray[np.float64]
    # What the random number of a row is a function of.
    seed: npt.NDArray[np.uint64]
    sequence: npt.NDArray[np.uint64]
    position: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, drawing: list[tuple[SequenceGroup, Sequence]]) -> Rows:
        """Return the rows of the sequences that draw, each at its next position."""
        params = [group.params for group, _ in drawing]
        return cls(
            temperature=np.array([p.temperature for p in params], dtype=np.float32),
            top_k=np.array([p.top_k for p in params], dtype=np.int64),
            top_p=np.array([p.top_p for p in params], dtype=np.float64),
            seed=np.array([_seed(group) for group, _ in drawing], dtype=np.uint64),
            sequence=np.array([sequence.index for _, sequence in drawing], dtype=np.uint64),
            position=np.array([sequence.num_tokens for _, sequence in drawing], dtype=np.uint64),
        )


def draw(logits: Tensor, rows: Rows) -> Drawn:
    """Draw one token for each row of float32 `logits` [N, V]."""
    tokens = logits.argmax(-1)
    (sampled,) = np.nonzero(rows.temperature > 0)
    for start in range(0, len(sampled), ROWS):
        chosen = sampled[start : start + ROWS]
        index = torch.from_numpy(chosen).to(logits.device)
        tokens[index] = _sample(logits[index], rows, chosen)
    total = logits.logsumexp(-1)
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - total
    return Drawn(
        tokens=tokens.cpu().numpy(),
        logprobs=logprobs.cpu().numpy(),
        valid=total.isfinite().cpu().numpy(),
    )


def _sample(logits: Tensor, rows: Rows, chosen: npt.NDArray[np.int64]) -> Tensor:
    """Return a token for each of `logits` [M, V], the rows numbered `chosen`."""
    device = logits.device
    temperature = torch.from_numpy(rows.temperature[chosen]).to(device)
    # The best token is at 0 and all others below, so no temperature overflows.
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]
    top_k = torch.from_numpy(rows.top_k[chosen]).to(device)
    top_p = torch.from_numpy(rows.top_p[chosen]).to(device)
    threshold = _thresholds(scaled, top_k, top_p)
    weights = scaled.double().exp().masked_fill_(scaled < threshold[:, None], 0.0)
    sums = weights.cumsum(-1)
    numbers = uniforms(rows.seed[chosen], rows.sequence[chosen], rows.position[chosen])
    target = torch.from_numpy(numbers).to(device)[:, None] * sums[:, -1:]
    # The first token whose running sum exceeds the target; NaN rows would point past the end.
    return torch.searchsorted(sums, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def _thresholds(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return the smallest logit that each row of [M, V] keeps, -inf where it keeps all."""
    vocabulary = scaled.shape[1]
    threshold = torch.full_like(scaled[:, 0], float("-inf"))
    top_k = torch.where((top_k > 0) & (top_k < vocabulary), top_k, 0)
    (cutting,) = torch.nonzero((top_k > 0) | (top_p < 1.0), as_tuple=True)
    count = max(CANDIDATES, int(top_k.max()))
    while len(cutting):
        count = min(count, vocabulary)
        best, found = _cut(scaled[cutting], top_k[cutting], top_p[cutting], count)
        threshold[cutting[found]] = best[found]
        cutting = cutting[~found]
        count *= WIDER
    return threshold


def _cut(scaled: Tensor, top_k: Tensor, top_p: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's threshold among its `count` best tokens, and whether it is there.

    top_p counts within what top_k kept: a token stays if those better than it sum up to less.
    """
    best = scaled.topk(count).values
    weights = best.double().exp()
    limited = top_k > 0
    within = ~limited[:, None] | (torch.arange(count, device=scaled.device) < top_k[:, None])
    weights *= within
    total = torch.where(limited, weights.sum(-1), scaled.double().exp().sum(-1))
    before = weights.cumsum(-1) - weights
    kept = ((before < top_p[:, None] * total[:, None]) & within).sum(-1).clamp(min=1)
    threshold = best.gather(1, kept[:, None] - 1)[:, 0]
    return threshold, limited | (kept < count) | (count == scaled.shape[1])


def _seed(group: SequenceGroup) -> int:
    """The row's seed; rows come with one, and without it the key tells rows apart."""
    params: SamplingParams = group.params
    return as_word(group.key if params.seed is None else params.seed)

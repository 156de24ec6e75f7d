"""From logits to tokens, all rows of a step at once.

    logits [N, V] ─► processed ─► greedy rows: argmax
                              └─► others: / temperature ─► min_p ─► top_k ─► top_p ─► draw
                                                                    by one random number a row

What is kept by top_k and top_p is what reaches a threshold logit, so equally likely tokens stay or
go together and a draw does not depend on how ties were sorted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from batchgen.engine.grammar import Grammar
from batchgen.engine.logprobs import TopTokens, top_tokens
from batchgen.engine.processors import Context, needs_processing, process
from batchgen.engine.randomness import uniforms
from batchgen.engine.sequence import Sequence
from batchgen.io.params import SamplingParams

CANDIDATES = 256  # most likely tokens looked at first for a threshold
WIDER = 16  # times more candidates where those do not reach it
ROWS = 16  # rows drawn at a time: bounds the float64 work space


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """One token to draw."""

    # Row of the logits; several samples of one prompt share one.
    row: int
    sequence: Sequence
    params: SamplingParams
    # With the sequence's index and its length it selects the random number; 64 bits.
    seed: int
    grammar: Grammar | None
    # Tokens that end the answer.
    ends: frozenset[int]

    @property
    def context(self) -> Context:
        """What the processing of the scores depends on."""
        return Context(
            params=self.params,
            tokens=self.sequence.tokens,
            num_prompt=self.sequence.num_prompt,
            ends=self.ends,
            grammar=self.grammar,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One token for each draw, [M] each."""

    tokens: npt.NDArray[np.int64]
    # Of the token, under the model's own distribution: no temperature, nothing cut off.
    logprobs: npt.NDArray[np.float32]
    # False where there is no token: the logits were no numbers, or nothing was allowed (`stuck`).
    valid: npt.NDArray[np.bool_]
    stuck: npt.NDArray[np.bool_]
    # {draw: the likeliest tokens in its place}, where its request wants them.
    top: dict[int, TopTokens]


def draw(raw: Tensor, draws: list[Draw]) -> Drawn:
    """Draw one token for each of `draws` from float32 logits [N, V], which are left as they are."""
    rows = torch.tensor([each.row for each in draws], device=raw.device)
    logits = raw if rows.tolist() == list(range(len(raw))) else raw[rows]
    scores, stuck = _processed(logits, draws)
    tokens = scores.argmax(-1)
    sampled = [i for i, each in enumerate(draws) if not each.params.greedy]
    for start in range(0, len(sampled), ROWS):
        chosen = sampled[start : start + ROWS]
        index = torch.tensor(chosen, device=raw.device)
        tokens[index] = _sample(scores[index], [draws[i] for i in chosen])
    total = raw.logsumexp(-1)[rows]
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - total
    return Drawn(
        tokens=tokens.cpu().numpy(),
        logprobs=logprobs.cpu().numpy(),
        valid=(total.isfinite() & ~stuck).cpu().numpy(),
        stuck=(total.isfinite() & stuck).cpu().numpy(),
        top=_likeliest(logits, draws),
    )


def _processed(logits: Tensor, draws: list[Draw]) -> tuple[Tensor, Tensor]:
    """Return the scores to choose by, and the rows [M] in which nothing is allowed."""
    changed = [i for i, d in enumerate(draws) if needs_processing(d.params, d.grammar)]
    stuck = torch.zeros(len(draws), dtype=torch.bool, device=logits.device)
    if not changed:
        return logits, stuck
    index = torch.tensor(changed, device=logits.device)
    part = logits[index]
    process(part, [draws[i].context for i in changed])
    stuck[index] = part.amax(-1) == float("-inf")
    scores = logits.clone()
    scores[index] = part
    return scores, stuck


def _likeliest(logits: Tensor, draws: list[Draw]) -> dict[int, TopTokens]:
    wanted = [i for i, each in enumerate(draws) if each.params.top_logprobs]
    if not wanted:
        return {}
    logprobs = logits[torch.tensor(wanted, device=logits.device)].log_softmax(-1)
    best = top_tokens(logprobs, max(draws[i].params.top_logprobs for i in wanted))
    return {
        i: _first(top, draws[i].params.top_logprobs) for i, top in zip(wanted, best, strict=True)
    }


def _first(top: TopTokens, count: int) -> TopTokens:
    return TopTokens(ids=top.ids[:count], logprobs=top.logprobs[:count])


def _sample(logits: Tensor, draws: list[Draw]) -> Tensor:
    """Return a token for each of `logits` [M, V]."""
    device = logits.device
    params = [each.params for each in draws]
    temperature = torch.tensor([p.temperature for p in params], device=device)
    # The best token is at 0 and all others below, so no temperature overflows.
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]
    floor = torch.tensor([p.min_p for p in params], device=device).log()
    scaled.masked_fill_(scaled < floor[:, None], float("-inf"))
    top_k = torch.tensor([p.top_k for p in params], device=device)
    top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device)
    threshold = _thresholds(scaled, top_k, top_p)
    weights = scaled.double().exp().masked_fill_(scaled < threshold[:, None], 0.0)
    sums = weights.cumsum(-1)
    target = torch.from_numpy(_numbers(draws)).to(device)[:, None] * sums[:, -1:]
    # The first token whose running sum exceeds the target; NaN rows would point past the end.
    return torch.searchsorted(sums, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def _numbers(draws: list[Draw]) -> npt.NDArray[np.float64]:
    """Return the random number of each draw, in [0, 1)."""
    return uniforms(
        np.array([each.seed for each in draws], dtype=np.uint64),
        np.array([each.sequence.index for each in draws], dtype=np.uint64),
        np.array([each.sequence.num_tokens for each in draws], dtype=np.uint64),
    )


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

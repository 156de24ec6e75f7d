"""Turns logits into tokens, all rows of a step at once.

    logits [N, V] ─► processed, if parameters require it
                       ├─► greedy rows: argmax
                       └─► others: / temperature ─► min_p ─► top_k ─► top_p
                                                 ─► draw by one random number per row

top_k and top_p keep the tokens that reach a threshold logit. So equally likely tokens are kept or
dropped together, and a draw does not depend on the order of ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.grammar import Grammar
from batchgen.engine.decoding.logprobs import TopTokens, top_tokens
from batchgen.engine.decoding.processors import Context, needs_processing, process
from batchgen.engine.decoding.randomness import uniforms
from batchgen.engine.scheduling.sequence import Sequence

CANDIDATES = 256  # likeliest tokens that are searched first for a threshold
WIDER = 16  # factor for the candidates if the threshold is not among them
WORK = 1 << 20  # scores drawn from at a time, to limit the float64 work space
COLDEST = 1e-30  # the lowest temperature that float32 can still divide by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """One token to draw."""

    # Row of the logits; several samples of one prompt share one.
    row: int
    sequence: Sequence
    params: SamplingParams
    # 64 bits; selects the random number together with the sequence's index and length.
    seed: int
    grammar: Grammar | None
    # Tokens that end the answer.
    ends: frozenset[int]

    @property
    def is_processed(self) -> bool:
        """True if the scores to choose by may differ from the logits."""
        generated = self.sequence.num_generated
        return needs_processing(self.params, self.grammar, num_generated=generated)

    @property
    def context(self) -> Context:
        """The inputs for processing the scores."""
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
    # Log-probabilities under the model's own distribution: no temperature, nothing cut off.
    logprobs: npt.NDArray[np.float32]
    # False if there is no token: a logit was NaN or infinite, or no token was allowed (`stuck`).
    valid: npt.NDArray[np.bool_]
    stuck: npt.NDArray[np.bool_]
    # {draw: the likeliest tokens at its position}, if its request wants them.
    top: dict[int, TopTokens]


def draw(raw: Tensor, draws: list[Draw]) -> Drawn:
    """Draw one token for each of `draws` from float32 logits [N, V], which stay unchanged."""
    rows = torch.tensor([each.row for each in draws], dtype=torch.int64, device=raw.device)
    likeliest = raw.max(-1)
    # Not torch.logsumexp, which would search for the maximum once more.
    sums = (raw - likeliest.values[:, None]).exp_().sum(-1)
    totals = (likeliest.values + sums.log())[rows]
    tokens = likeliest.indices[rows]
    stuck = torch.zeros_like(tokens, dtype=torch.bool)
    changed = [i for i, each in enumerate(draws) if each.is_processed]
    if changed:
        scores = raw[rows[changed]]
        process(scores, [draws[i].context for i in changed])
        best = scores.max(-1)
        tokens[changed] = best.indices
        stuck[changed] = best.values == float("-inf")
        _sample(tokens, scores, {i: at for at, i in enumerate(changed)}, draws)
    plain = set(range(len(draws))).difference(changed)
    _sample(tokens, raw, {i: draws[i].row for i in sorted(plain)}, draws)
    numbers = totals.isfinite()
    return Drawn(
        tokens=tokens.cpu().numpy(),
        logprobs=(raw[rows, tokens] - totals).cpu().numpy(),
        valid=(numbers & ~stuck).cpu().numpy(),
        stuck=(numbers & stuck).cpu().numpy(),
        top=_likeliest(raw, totals, draws),
    )


def _likeliest(raw: Tensor, totals: Tensor, draws: list[Draw]) -> dict[int, TopTokens]:
    wanted = [i for i, each in enumerate(draws) if each.params.top_logprobs]
    if not wanted:
        return {}
    logprobs = raw[[draws[i].row for i in wanted]] - totals[wanted, None]
    best = top_tokens(logprobs, max(draws[i].params.top_logprobs for i in wanted))
    return {i: top.first(draws[i].params.top_logprobs) for i, top in zip(wanted, best, strict=True)}


def _sample(tokens: Tensor, logits: Tensor, places: dict[int, int], draws: list[Draw]) -> None:
    """Write the sampled tokens into `tokens` [M]; `places` is {draw: its row of `logits`}."""
    sampled = [i for i in places if not draws[i].params.greedy]
    count = max(1, WORK // logits.shape[1])
    for start in range(0, len(sampled), count):
        chosen = sampled[start : start + count]
        part = logits[[places[i] for i in chosen]]
        tokens[chosen] = _choose(part, [draws[i] for i in chosen])


def _choose(logits: Tensor, draws: list[Draw]) -> Tensor:
    """Return a token for each of `logits` [M, V], drawn by the row's random number."""
    device = logits.device
    params = [each.params for each in draws]
    temperature = torch.tensor([max(p.temperature, COLDEST) for p in params], device=device)
    # The best token is at 0 and all others are below, so no temperature causes an overflow.
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]
    if any(p.min_p for p in params):
        floor = torch.tensor([p.min_p for p in params], device=device).log()
        scaled.masked_fill_(scaled < floor[:, None], float("-inf"))
    top_k = torch.tensor([p.top_k for p in params], device=device)
    top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device)
    threshold = _thresholds(scaled, top_k, top_p)
    weights = scaled.double().exp().masked_fill_(scaled < threshold[:, None], 0.0)
    sums = weights.cumsum(-1)
    target = torch.from_numpy(_numbers(draws)).to(device)[:, None] * sums[:, -1:]
    # The first token whose running sum exceeds the target; the clamp is for rows of NaN.
    return torch.searchsorted(sums, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def _numbers(draws: list[Draw]) -> npt.NDArray[np.float64]:
    """Return the random number of each draw, in [0, 1)."""
    return uniforms(
        np.array([each.seed for each in draws], dtype=np.uint64),
        np.array([each.sequence.index for each in draws], dtype=np.uint64),
        np.array([each.sequence.num_tokens for each in draws], dtype=np.uint64),
    )


def _thresholds(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return the smallest logit [M] that each row of [M, V] keeps, -inf if it keeps all."""
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
    """Return each row's threshold among its `count` best tokens, and whether it is among them.

    top_p applies to the tokens that top_k kept: a token is kept if the sum of better ones is less.
    """
    best = scaled.topk(count).values
    weights = best.double().exp()
    limited = top_k > 0
    within = ~limited[:, None] | (torch.arange(count, device=scaled.device) < top_k[:, None])
    weights *= within
    sums = weights.cumsum(-1)
    # The total does not depend on the number of candidates, so other rows change nothing.
    total = torch.where(limited, sums[:, -1], scaled.double().exp().sum(-1))
    before = sums - weights
    kept = ((before < top_p[:, None] * total[:, None]) & within).sum(-1).clamp(min=1)
    threshold = best.gather(1, kept[:, None] - 1)[:, 0]
    return threshold, limited | (kept < count) | (count == scaled.shape[1])

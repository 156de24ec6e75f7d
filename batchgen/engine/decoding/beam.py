"""Beam search, equal in float32 to transformers' `generate(num_beams=k, do_sample=False)`.

    beams [R] ── scores [R, V] + running [R] ──► joint top K = max(2, 1 + ends) · k candidates
                                                  ├─ of the first k those that end ──► k places
                                                  └─ the best k that do not end ─────► next beams

A place holds a finished answer and its score: the sum of its log-probabilities, divided by (tokens,
including the end token) ** length_penalty. A better answer replaces the worst. Each beam has one
candidate per end token, so enough of the K candidates do not end, and k beams continue.

The search starts from one row, the prompt's, broadcast over k beams; all but the first start at
-inf. Candidates at -inf, also those that a grammar forbids, are ignored. If fewer than k candidates
are left, fewer beams continue and fewer answers are found; transformers continues with copies and
ended beams instead, at a score of -1e9.

Scores are computed by transformers' float32 operations in the same order, so they are equal to the
last bit if the log-probabilities are. If scores are equal, the better candidate comes first and an
answer that has a place keeps it; transformers leaves that to its sort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from batchgen.core.params import SamplingParams
from batchgen.core.rows import FinishReason
from batchgen.engine.scheduling.sequence import Sequence

NOTHING = float("-inf")  # the score of an ignored candidate and of an empty place
#: Returns the finish reason if a token would end the answer of a beam, else None.
Ends = Callable[[Sequence, int], FinishReason | None]
#: Returns a copy of a beam with one more token, its last.
Finish = Callable[[Sequence, int], Sequence]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamStep:
    """The next beams, best first: at most k, at least one unless `done`."""

    # Position in this step of the beam that each continues.
    parents: list[int]
    # The token appended to each.
    tokens: list[int]
    # The cumulative log-probability of each after that.
    scores: list[float]
    # True if the search is over and its results are final.
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The best continuations over all beams, best first; [K] each, scores on the CPU."""

    scores: Tensor
    # Position of the beam that is continued.
    parents: list[int]
    tokens: list[int]
    # The finish reason if the continuation ends its answer; None otherwise, and at -inf.
    reasons: list[FinishReason | None]

    @property
    def ended(self) -> Tensor:
        """A bool mask [K] of the continuations that end their answer."""
        return torch.tensor([reason is not None for reason in self.reasons])


class BeamSearch:
    """The state of the search for one prompt: scores of the running beams, and the places."""

    def __init__(self, params: SamplingParams, *, max_tokens: int, num_ends: int) -> None:
        """Search for answers of at most `max_tokens`, which one of `num_ends` tokens may end."""
        self.width = params.num_beams
        self.max_tokens = max_tokens
        self._params = params
        self._num_candidates = max(2, 1 + num_ends) * self.width
        # Of the beams, in their order: cumulative log-probabilities.
        self._running = torch.full((self.width,), NOTHING)
        self._running[0] = 0.0
        # The best finished answers, best first; None is an empty place, at any index.
        self._places: list[Sequence | None] = [None] * self.width
        self._scores = torch.full((self.width,), NOTHING)

    def advance(
        self, scores: Tensor, beams: list[Sequence], ends: Ends, on_finish: Finish
    ) -> BeamStep:
        """Take the next token of every beam.

        `scores` [R, V] are the processed float32 log-probabilities of each of `beams`, without NaN.
        `beams` is the prompt alone in the first step, then the beams of the last step in its order.
        The search checks the length limit; `ends` checks everything else that ends an answer.
        `on_finish` is called for each answer that gets a place, before `beams` change.
        """
        length = beams[0].num_generated + 1
        best = self._candidates(scores, beams, ends, at_limit=length == self.max_tokens)
        self._finish(best, length, beams, on_finish)
        following = self._following(best)
        self._running = best.scores[following]
        return BeamStep(
            parents=[best.parents[at] for at in following],
            tokens=[best.tokens[at] for at in following],
            scores=self._running.tolist(),
            done=self._is_done(length),
        )

    def results(self) -> list[Sequence]:
        """Return the n best answers, best first; fewer if no more were found."""
        found = [sequence for sequence in self._places if sequence is not None]
        for index, sequence in enumerate(found):
            sequence.index = index
        return found[: self._params.n]

    def _candidates(
        self, scores: Tensor, beams: list[Sequence], ends: Ends, *, at_limit: bool
    ) -> Candidates:
        """Return the best continuations of all beams."""
        row_best = scores.topk(min(self._num_candidates, scores.shape[1]))
        # [R, K]; in the first step R is 1 and the one row broadcasts over all k beams.
        sums = row_best.values.cpu() + self._running[:, None]
        values, order = best_of(sums.flatten(), self._num_candidates)
        parents = (order // sums.shape[1]).tolist()
        tokens = row_best.indices.cpu().expand_as(sums).flatten()[order].tolist()
        limit: FinishReason | None = "length" if at_limit else None
        reasons: list[FinishReason | None] = []
        going = 0
        for parent, token, worth in zip(parents, tokens, values.tolist(), strict=True):
            # Only the first k may finish, and only the best k that do not end continue.
            if len(reasons) >= self.width and (at_limit or going == self.width):
                break
            reasons.append(ends(beams[parent], token) or limit if worth > NOTHING else None)
            going += reasons[-1] is None
        used = len(reasons)
        return Candidates(
            scores=values[:used], parents=parents[:used], tokens=tokens[:used], reasons=reasons
        )

    def _finish(
        self, best: Candidates, length: int, beams: list[Sequence], on_finish: Finish
    ) -> None:
        """Give the places to the best of the answers that hold one and those that end now."""
        competing = best.ended
        competing[self.width :] = False
        # A very strong penalty may overflow float32; an answer must still beat an empty place.
        final = (best.scores / length**self._params.length_penalty).nan_to_num()
        merged = torch.cat([self._scores, final.masked_fill(~competing, NOTHING)])
        self._scores, order = best_of(merged, self.width)
        places: list[Sequence | None] = []
        for score, at in zip(self._scores.tolist(), order.tolist(), strict=True):
            held = self._places[at] if at < self.width else None
            if at >= self.width and competing[at - self.width]:
                at -= self.width
                held = on_finish(beams[best.parents[at]], best.tokens[at])
                held.finish_reason, held.score = best.reasons[at], score
            places.append(held)
        self._places = places

    def _following(self, best: Candidates) -> list[int]:
        """Return the candidates that are the next beams, best first."""
        going = best.scores.masked_fill(best.ended, NOTHING)
        values, order = best_of(going, self.width)
        return [int(at) for at in order[values > NOTHING]]

    def _is_done(self, length: int) -> bool:
        """Return whether no running beam can still get a place, or may by `early_stopping`.

        The best beam is scored at its present length, but with "never" and a positive length
        penalty at the maximal length.
        """
        if not len(self._running):
            return True
        if None in self._places:
            return False
        if self._params.early_stopping is True:
            return True
        penalty = self._params.length_penalty
        if self._params.early_stopping == "never" and penalty > 0.0:
            length = self.max_tokens
        return not bool(self._running[0] / length**penalty > self._scores[-1])


def best_of(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best `scores` and their indices; equal scores keep their order."""
    ranked = scores.sort(descending=True, stable=True)
    return ranked.values[:count], ranked.indices[:count]

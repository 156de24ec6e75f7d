"""Beam search, equal in float32 to transformers' `generate(num_beams=k, do_sample=False)`.

    beams [R] ── scores [R, V] + running [R] ──► joint top K = max(2, 1 + ends) · k candidates
                                                  ├─ of the first k those that end ──► k places
                                                  └─ the best k that do not end ─────► next beams

A place holds a finished answer and its score, the sum of its log-probabilities divided by (tokens,
the ending one included) ** length_penalty; a better answer takes the place of the worst. At most k
of the K candidates end with an end token, since a beam has one candidate for each: k always go on.

The search starts from one row, the prompt's, broadcast over k beams of which only the first is
worth anything: candidates of the others, like those that a grammar forbids, have -inf and are none.
Where fewer than k candidates are left, fewer beams go on and fewer answers come of it; transformers
goes on with copies and ended beams instead, at a score of -1e9.

Scores are computed by transformers' float32 operations in its order, so they are equal to the last
bit where the log-probabilities are. Of exactly equal scores the better candidate comes first and
what holds a place keeps it; transformers leaves that to its sort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from batchgen.core.params import SamplingParams
from batchgen.core.rows import FinishReason
from batchgen.engine.scheduling.sequence import Sequence

NOTHING = float("-inf")  # the score of what is no candidate, and of a place not taken

#: Says whether and why a token ends the answer of a beam that it would be appended to.
Ends = Callable[[Sequence, int], FinishReason | None]
#: Returns a copy of a beam with one more token, its last.
Finish = Callable[[Sequence, int], Sequence]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamStep:
    """What each of the next beams is, best first: at most k, at least one unless `done`."""

    # The beam that it continues, by its position in this step.
    parents: list[int]
    # The token appended to it.
    tokens: list[int]
    # Its cumulative log-probability after that.
    scores: list[float]
    # The search is over and its results are final; nothing goes on.
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The best continuations of all beams together, best first; [K] each, scores on the CPU."""

    scores: Tensor
    # Position of the beam that is continued.
    parents: list[int]
    tokens: list[int]
    # Why the continuation ends its answer; None where it goes on, or scores nothing.
    reasons: list[FinishReason | None]

    @property
    def ended(self) -> Tensor:
        """Which of them end their answer."""
        return torch.tensor([reason is not None for reason in self.reasons])


class BeamSearch:
    """The state of the search for one prompt: what the running beams are worth, and the places."""

    def __init__(self, params: SamplingParams, *, max_tokens: int, num_ends: int) -> None:
        """Search for answers of at most `max_tokens`, which one of `num_ends` tokens may end."""
        self.width = params.num_beams
        self.max_tokens = max_tokens
        self._params = params
        self._num_candidates = max(2, 1 + num_ends) * self.width
        # Of the beams, in their order: cumulative log-probabilities.
        self._running = torch.full((self.width,), NOTHING)
        self._running[0] = 0.0
        # The best finished answers, best first; places not taken are anywhere.
        self._places: list[Sequence | None] = [None] * self.width
        self._scores = torch.full((self.width,), NOTHING)

    def advance(
        self, scores: Tensor, beams: list[Sequence], ends: Ends, on_finish: Finish
    ) -> BeamStep:
        """Take the next token of every beam.

        `scores` [R, V] are float32 log-probabilities as processed for each of `beams`: the prompt
        alone in the first step, then the beams of the last step in its order. The length limit is
        the search's own, everything else that ends an answer `ends` knows. `on_finish` is called
        for an answer that gets a place, while `beams` are as they were; scores that are no numbers
        must not come here.
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
        """Return the n best answers, best first; fewer where no more could be found."""
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
            # The first k may finish and the best k that do not end go on: the rest is no use.
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
        # A penalty too strong for float32 must not make an answer worth less than a free place.
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
        """Return whether no running beam can, or by `early_stopping` may, still get a place.

        Unless "never" with a reward for length, the best beam counts as if it ended here and now.
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
    """Return the `count` best of `scores` and where they are; of equal ones the first."""
    ranked = scores.sort(descending=True, stable=True)
    return ranked.values[:count], ranked.indices[:count]

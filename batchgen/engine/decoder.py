"""Turns the logits of a step into the next tokens of every request in it.

    logits [N, V] ──► prompt rows: the log-probability of each prompt token
                 ├──► drawing rows of samples ─► draw ─► one token for each sequence
                 └──► drawing rows of beams ─► log-softmax ─► beams part, go on, or end

A group forks at its first draw: n samples are drawn from the one row of its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchgen.engine.decoding.logprobs import TopTokens, prompt_logprobs, top_tokens
from batchgen.engine.decoding.processors import Context, needs_processing, process
from batchgen.engine.decoding.sampler import Draw, draw
from batchgen.engine.ongoing import Ongoing, answer_of
from batchgen.engine.row_errors import INVALID_LOGITS, NO_TOKEN
from batchgen.engine.scheduling.plan import StepPlan
from batchgen.engine.scheduling.scheduler import Scheduler
from batchgen.engine.scheduling.sequence import Sequence

if TYPE_CHECKING:
    from torch import Tensor


class Decoder:
    """Chooses the next tokens for the requests of one engine."""

    def __init__(self, scheduler: Scheduler, ongoing: Mapping[int, Ongoing]) -> None:
        """Decode for the requests in `ongoing`, {key: request}, which the engine updates."""
        self._scheduler = scheduler
        self._ongoing = ongoing

    def decode(self, plan: StepPlan, logits: Tensor) -> int:
        """Choose tokens from the float32 logits [N, V] of a computed plan; return how many.

        Afterwards, sequences whose answers are complete have a finish reason.
        """
        draws: list[Draw] = []
        searches: dict[Ongoing, list[int]] = {}
        for row, sequence in enumerate(plan.drawing):
            one = self._ongoing[sequence.key]
            if one.beams is not None:
                searches.setdefault(one, []).append(row)
            else:
                draws += self._draws(one, sequence, row)
        self._judge_prompts(plan, logits[len(plan.drawing) :])
        self._sample(logits[: len(plan.drawing)], draws)
        for one, rows in searches.items():
            self._search(one, logits[rows])
        return len(draws) + sum(map(len, searches.values()))

    def _draws(self, one: Ongoing, sequence: Sequence, row: int) -> list[Draw]:
        """Return the draws from one row: one, or for a prompt one for each sample."""
        group, drawing = one.group, [sequence]
        if group.is_prompt and group.width > 1:
            self._scheduler.reparent(group, [0] * group.width)
            drawing = group.sequences
        return [
            Draw(
                row=row,
                sequence=each,
                params=group.params,
                seed=one.seed,
                grammar=answer_of(each).grammar,
                ends=one.ends,
            )
            for each in drawing
        ]

    def _sample(self, logits: Tensor, draws: list[Draw]) -> None:
        if not draws:
            return
        drawn = draw(logits, draws)
        tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
        valid, stuck = drawn.valid.tolist(), drawn.stuck.tolist()
        for i, each in enumerate(draws):
            one = self._ongoing[each.sequence.key]
            if one.error is not None:
                continue
            if valid[i]:
                top = drawn.top.get(i)
                each.sequence.finish_reason = one.accept(each.sequence, tokens[i], logprobs[i], top)
            else:
                one.fail(NO_TOKEN if stuck[i] else INVALID_LOGITS)

    def _judge_prompts(self, plan: StepPlan, logits: Tensor) -> None:
        at = 0
        for rows in plan.prompt_rows:
            one = self._ongoing[rows.sequence.key]
            positions = range(rows.start, rows.start + rows.count)
            tokens = rows.sequence.tokens[positions.start : positions.stop]
            wanted = one.group.params.prompt_logprobs or 0
            judged = prompt_logprobs(logits[at : at + rows.count], tokens, wanted)
            one.prompt_logprobs.update(zip(positions, judged, strict=True))
            at += rows.count

    def _search(self, one: Ongoing, logits: Tensor) -> None:
        """Advance the beams of one request by one token; `logits` are [R, V]."""
        assert one.beams is not None
        logprobs = logits.log_softmax(-1)
        # If one logit is NaN, or all are -inf, every probability of the row is NaN.
        if not bool(logprobs.amax(-1).isfinite().all()):
            one.fail(INVALID_LOGITS)
            return
        beams = one.group.unfinished
        child = _Children(one, beams, logprobs)
        scores = _processed(one, beams, logprobs)
        step = one.beams.advance(scores, beams, one.ending, child.finished)
        if step.done and not one.beams.results():
            one.fail(NO_TOKEN)
            return
        if step.done:
            one.finish()
            return
        self._scheduler.reparent(one.group, step.parents)
        child.grow(one.group.sequences, step.parents, step.tokens, step.scores)


class _Children:
    """Builds the next beams, and the finished answers, from the present beams."""

    def __init__(self, one: Ongoing, beams: list[Sequence], logprobs: Tensor) -> None:
        self._one = one
        self._rows = {beam: row for row, beam in enumerate(beams)}
        self._logprobs = logprobs
        self._top = self._likeliest()

    def finished(self, parent: Sequence, token: int) -> Sequence:
        """Return a finished answer: `parent` with one more token."""
        child = parent.fork(parent.index)
        self._accept(child, self._rows[parent], token)
        return child

    def grow(
        self, beams: list[Sequence], parents: list[int], tokens: list[int], scores: list[float]
    ) -> None:
        """Append its token to each beam, and set its score to the sum that the search keeps."""
        for beam, parent, token, score in zip(beams, parents, tokens, scores, strict=True):
            self._accept(beam, parent, token)
            beam.score = score

    def _accept(self, child: Sequence, row: int, token: int) -> None:
        logprob = 0.0
        if self._one.group.params.logprobs:
            logprob = float(self._logprobs[row, token])
        self._one.accept(child, token, logprob, self._top[row] if self._top else None)

    def _likeliest(self) -> list[TopTokens]:
        params = self._one.group.params
        return top_tokens(self._logprobs, params.top_logprobs) if params.logprobs else []


def _processed(one: Ongoing, beams: list[Sequence], logprobs: Tensor) -> Tensor:
    """Return the scores [R, V] that beams are chosen by.

    They are processed log-probabilities, as in transformers.
    """
    params = one.group.params
    contexts = [
        Context(
            params=params,
            tokens=beam.tokens,
            num_prompt=beam.num_prompt,
            ends=one.ends,
            grammar=answer_of(beam).grammar,
        )
        for beam in beams
    ]
    drawn = beams[0].num_generated
    if not any(needs_processing(params, c.grammar, num_generated=drawn) for c in contexts):
        return logprobs
    scores = logprobs.clone()
    process(scores, contexts)
    return scores

"""Changes of a row's scores by its parameters, before a token is chosen, in this order:

    repetition_penalty ─► presence, frequency ─► logit_bias
                       ─► allowed_token_ids ─► min_tokens ─► grammar

As in transformers, scores are logits for sampling and log-probabilities for a beam search. Rows are
gathered into flat (row, token) lists, so each kind is one tensor operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.grammar import Grammar, forbidden

NEVER = float("-inf")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """The inputs for processing one row."""

    params: SamplingParams
    # Prompt, then the answer so far.
    tokens: list[int]
    num_prompt: int
    # Tokens that end an answer.
    ends: frozenset[int]
    grammar: Grammar | None

    @property
    def num_generated(self) -> int:
        """The number of tokens of the answer so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def all_ends(self) -> frozenset[int]:
        """The tokens that end an answer, including the grammar's end tokens."""
        return self.ends if self.grammar is None else self.ends | self.grammar.ends


def needs_processing(
    params: SamplingParams, grammar: Grammar | None, *, num_generated: int = 0
) -> bool:
    """Return whether `process` may change a score of a row with `num_generated` answer tokens."""
    return grammar is not None or (
        params.repetition_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
        or params.min_tokens > num_generated
        or bool(params.logit_bias)
        or bool(params.allowed_token_ids)
    )


def process(scores: Tensor, contexts: Sequence[Context]) -> None:
    """Change float32 `scores` [M, V] in place by each row's parameters."""
    _penalise_repetition(scores, contexts)
    _penalise_presence(scores, contexts)
    _add_bias(scores, contexts)
    _keep_allowed(scores, contexts)
    _forbid_ends(scores, contexts)
    _keep_to_grammar(scores, contexts)


def _penalise_repetition(scores: Tensor, contexts: Sequence[Context]) -> None:
    rows = [i for i, c in enumerate(contexts) if c.params.repetition_penalty != 1.0]
    if not rows:
        return
    # A token that occurs twice is read and written twice, with the same result.
    index, sizes = _flat(rows, lambda i: contexts[i].tokens, scores)
    penalties = np.array([contexts[i].params.repetition_penalty for i in rows], dtype=np.float32)
    penalty = torch.from_numpy(np.repeat(penalties, sizes)).to(scores.device)
    old = scores[index]
    scores[index] = torch.where(old < 0, old * penalty, old / penalty)


def _penalise_presence(scores: Tensor, contexts: Sequence[Context]) -> None:
    counts: dict[int, tuple[Ints, Ints]] = {}
    for i, c in enumerate(contexts):
        wanted = c.params.presence_penalty != 0.0 or c.params.frequency_penalty != 0.0
        if wanted and c.num_generated:
            counts[i] = np.unique(c.tokens[c.num_prompt :], return_counts=True)
    if not counts:
        return
    index, _ = _flat(list(counts), lambda i: counts[i][0], scores)
    amounts = [
        contexts[i].params.presence_penalty + contexts[i].params.frequency_penalty * times
        for i, (_, times) in counts.items()
    ]
    taken = np.concatenate(amounts).astype(np.float32)
    scores[index] -= torch.from_numpy(taken).to(scores.device)


def _add_bias(scores: Tensor, contexts: Sequence[Context]) -> None:
    rows = [i for i, c in enumerate(contexts) if c.params.logit_bias]
    if not rows:
        return
    index, _ = _flat(rows, lambda i: list(contexts[i].params.logit_bias), scores)
    added = [bias for i in rows for bias in contexts[i].params.logit_bias.values()]
    scores[index] += torch.tensor(added, dtype=scores.dtype, device=scores.device)


def _keep_allowed(scores: Tensor, contexts: Sequence[Context]) -> None:
    rows = [i for i, c in enumerate(contexts) if c.params.allowed_token_ids]
    if not rows:
        return
    index, _ = _flat(rows, lambda i: contexts[i].params.allowed_token_ids, scores)
    kept = scores[index]
    scores[rows] = NEVER
    scores[index] = kept


def _forbid_ends(scores: Tensor, contexts: Sequence[Context]) -> None:
    rows = [i for i, c in enumerate(contexts) if c.num_generated < c.params.min_tokens]
    ends = {i: [t for t in contexts[i].all_ends if t < scores.shape[1]] for i in rows}
    if any(ends.values()):
        index, _ = _flat(rows, lambda i: ends[i], scores)
        scores[index] = NEVER


def _keep_to_grammar(scores: Tensor, contexts: Sequence[Context]) -> None:
    grammars = {i: c.grammar for i, c in enumerate(contexts) if c.grammar is not None}
    if grammars:
        rows, vocabulary = scores.shape
        mask = torch.from_numpy(forbidden(grammars, rows=rows, vocabulary=vocabulary))
        scores.masked_fill_(mask.to(scores.device), NEVER)


def _flat(
    rows: list[int], tokens: Callable[[int], Sequence[int] | Ints], scores: Tensor
) -> tuple[tuple[Tensor, Tensor], list[int]]:
    """Return the index of all (row, token) pairs, and how many tokens each row has."""
    parts = [np.asarray(tokens(row), dtype=np.int64) for row in rows]
    sizes = [len(part) for part in parts]
    at = torch.from_numpy(np.repeat(np.array(rows, dtype=np.int64), sizes)).to(scores.device)
    return (at, torch.from_numpy(np.concatenate(parts)).to(scores.device)), sizes

"""The plan of one engine step: the scheduler's decision as arrays, ready for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.sequence import Sequence, SequenceGroup

Ints = npt.NDArray[np.int64]
Pairs = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledTokens:
    """A sequence with the number of its pending tokens that this step computes."""

    group: SequenceGroup
    sequence: Sequence
    count: int

    @property
    def draws(self) -> bool:
        """True if no token stays pending, so that the next token is drawn."""
        return self.count == self.sequence.pending


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptRows:
    """Rows of logits from which the log-probabilities of prompt tokens are computed."""

    sequence: Sequence
    # Position of the first token that is predicted, and how many are.
    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPlan:
    """A step of S sequences with T tokens in all, packed one after the other.

        sequences      A        B   C            tables [S, W]
        token_ids   [ a a a a | b | c c ]  [T]   starts, counts [S]
        logit_rows          ^   ^     ^    [N]   rows that the next token is drawn from

    If a sequence's chunk ends before its last known token, it has no logit row. If a request wants
    prompt logprobs, rows that predict prompt tokens follow the rows that are drawn from.
    """

    # How many tokens each sequence computes, oldest sequence first.
    scheduled_tokens: list[ScheduledTokens]
    # The sequences that draw a token, in the order of logit_rows.
    drawing: list[Sequence]
    # The prompt tokens that the logit rows after those predict.
    prompt_rows: list[PromptRows]
    token_ids: Ints
    positions: Ints
    logit_rows: Ints
    # Block numbers, padded with the null block.
    tables: npt.NDArray[np.int32]
    # Tokens computed before this step, and in it.
    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    # Blocks to move before anything is written, in this order: (device, host), (host, device),
    # (device source, device destination).
    swap_outs: Pairs
    swap_ins: Pairs
    copies: Pairs

    @property
    def num_tokens(self) -> int:
        """The number of tokens computed in this step, T."""
        return len(self.token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """The number of tokens of this step that belong to prompts."""
        return sum(
            max(0, min(entry.count, entry.sequence.num_prompt - start))
            for entry, start in zip(self.scheduled_tokens, self.starts.tolist(), strict=True)
        )


def pack(
    scheduled: list[ScheduledTokens], tables: BlockTables, *, swap_outs: Pairs, swap_ins: Pairs
) -> StepPlan:
    """Return the plan that computes all `scheduled`."""
    sequences = [entry.sequence for entry in scheduled]
    starts = np.array([sequence.num_computed for sequence in sequences], dtype=np.int32)
    counts = np.array([entry.count for entry in scheduled], dtype=np.int32)
    ids: list[int] = []
    for entry in scheduled:
        start = entry.sequence.num_computed
        ids += entry.sequence.tokens[start : start + entry.count]
    ends = np.cumsum(counts, dtype=np.int64)
    drawn = [i for i, entry in enumerate(scheduled) if entry.draws]
    prompt_rows, predicting = _prompt_rows(scheduled, ends)
    rows = [sequence.table_row for sequence in sequences]
    width = max((tables.sizes[row] for row in rows), default=0)
    return StepPlan(
        scheduled_tokens=scheduled,
        drawing=[sequences[i] for i in drawn],
        prompt_rows=prompt_rows,
        token_ids=np.array(ids, dtype=np.int64),
        positions=np.arange(len(ids)) + np.repeat(starts - (ends - counts), counts),
        logit_rows=np.concatenate([ends[drawn] - 1, *predicting]),
        tables=tables.blocks[rows, :width],
        starts=starts,
        counts=counts,
        swap_outs=list(swap_outs),
        swap_ins=list(swap_ins),
        copies=list(tables.pool.copies),
    )


def _prompt_rows(
    scheduled: list[ScheduledTokens], ends: Ints
) -> tuple[list[PromptRows], list[Ints]]:
    """Return the prompt tokens to predict, and the rows of the tokens before each."""
    wanted: list[PromptRows] = []
    rows: list[Ints] = []
    for entry, end in zip(scheduled, ends.tolist(), strict=True):
        if not entry.group.wants_prompt_logprobs:
            continue
        sequence = entry.sequence
        start = sequence.num_computed
        # The last prompt token predicts the answer.
        count = min(entry.count, sequence.num_prompt - 1 - start)
        if count > 0:
            wanted.append(PromptRows(sequence=sequence, start=start + 1, count=count))
            rows.append(np.arange(end - entry.count, end - entry.count + count))
    return wanted, rows

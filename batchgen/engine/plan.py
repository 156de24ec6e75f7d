"""What one engine step computes: the scheduler's decision as arrays, ready for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchgen.engine.sequence import Sequence
from batchgen.engine.tables import BlockTables

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPlan:
    """S sequences with T tokens in all, packed one after the other.

        sequences      A        B   C            tables [S, W]
        token_ids   [ a a a a | b | c c ]  [T]   starts, counts [S]
        logit_rows          ^   ^     ^    [N]   where an answer's next token is drawn

    A sequence whose chunk ends before its last known token has no logit row.
    """

    # The sequences with pending tokens in this step, oldest first.
    sequences: list[Sequence]
    # Those of them that draw a token, in the order of logit_rows.
    drawing: list[Sequence]
    token_ids: Ints
    positions: Ints
    logit_rows: Ints
    # Block numbers, padded with the null block.
    tables: npt.NDArray[np.int32]
    # Tokens computed before this step, and in it.
    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    # (source, destination) blocks to copy before anything is written.
    copies: list[tuple[int, int]]

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step, T."""
        return len(self.token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of this step that belong to prompts."""
        return sum(
            max(0, min(count, sequence.num_prompt - start))
            for sequence, start, count in zip(
                self.sequences, self.starts.tolist(), self.counts.tolist(), strict=True
            )
        )


def pack(shares: list[tuple[Sequence, int]], tables: BlockTables) -> StepPlan:
    """Return the plan that gives each sequence its share of pending tokens."""
    sequences = [sequence for sequence, _ in shares]
    starts = np.array([sequence.num_computed for sequence in sequences], dtype=np.int32)
    counts = np.array([count for _, count in shares], dtype=np.int32)
    ids: list[int] = []
    for sequence, count in shares:
        ids += sequence.tokens[sequence.num_computed : sequence.num_computed + count]
    ends = np.cumsum(counts, dtype=np.int64)
    drawn = [i for i, (sequence, count) in enumerate(shares) if count == sequence.pending]
    rows = [sequence.row for sequence in sequences]
    width = max((tables.sizes[row] for row in rows), default=0)
    return StepPlan(
        sequences=sequences,
        drawing=[sequences[i] for i in drawn],
        token_ids=np.array(ids, dtype=np.int64),
        positions=np.arange(len(ids)) + np.repeat(starts - (ends - counts), counts),
        logit_rows=ends[drawn] - 1,
        tables=tables.blocks[rows, :width],
        starts=starts,
        counts=counts,
        copies=list(tables.pool.copies),
    )

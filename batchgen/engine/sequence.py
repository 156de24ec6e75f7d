"""Sequences and the groups they are scheduled in.

        tokens   [ prompt ……………………… | generated ………… ]
                 0           num_computed              num_tokens
                 └─ keys and values ──┘└── pending ───┘
                    are in the pool       computed next

One rule covers prefill, chunked prefill, decode and restart after preemption: a sequence is given
tokens until `num_computed` has caught up with `num_tokens`; then its last logits draw one more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from batchgen.io.params import SamplingParams
from batchgen.io.rows import FinishReason

NO_ROW = -1


class GroupState(StrEnum):
    """Where a group stands; `TRANSITIONS` says what may follow."""

    WAITING = "waiting"  #: No blocks held: new, or preempted to be computed again.
    RUNNING = "running"  #: Holds blocks and table rows; part of the steps.
    FINISHED = "finished"  #: Ended or aborted; holds nothing.


TRANSITIONS = {
    GroupState.WAITING: {GroupState.RUNNING, GroupState.FINISHED},
    GroupState.RUNNING: {GroupState.WAITING, GroupState.FINISHED},
    GroupState.FINISHED: set[GroupState](),
}


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One prompt with one answer as it grows."""

    # Of its group: the request's.
    key: int
    # Among the sequences of its group; with the seed it selects the random numbers.
    index: int
    # Prompt, then generated.
    tokens: list[int]
    num_prompt: int
    num_computed: int = 0
    # Row of the block tables while running, set by the scheduler.
    row: int = NO_ROW
    # Cumulative log-probability of the generated tokens.
    score: float = 0.0
    finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens known so far."""
        return len(self.tokens)

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def pending(self) -> int:
        """Tokens known but not computed yet."""
        return len(self.tokens) - self.num_computed

    @property
    def generated(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[self.num_prompt :]

    def append(self, token: int, logprob: float) -> None:
        """Add one drawn token."""
        self.tokens.append(token)
        self.score += logprob


@dataclass(slots=True, kw_only=True, eq=False)
class SequenceGroup:
    """The sequences of one request: admitted, preempted and resumed as one."""

    # The request's key.
    key: int
    params: SamplingParams
    # Tokens each answer may have; resolved against the context.
    max_tokens: int
    sequences: list[Sequence]
    # Position in the order of arrival, set by the scheduler.
    arrival: int = field(default=-1, init=False)
    state: GroupState = field(default=GroupState.WAITING, init=False)

    @classmethod
    def of_prompt(
        cls, key: int, prompt: list[int], params: SamplingParams, *, max_tokens: int
    ) -> SequenceGroup:
        """Return a group of one sequence that is its prompt."""
        sequence = Sequence(key=key, index=0, tokens=prompt, num_prompt=len(prompt))
        return cls(key=key, params=params, max_tokens=max_tokens, sequences=[sequence])

    @property
    def unfinished(self) -> list[Sequence]:
        """The sequences that still grow."""
        return [sequence for sequence in self.sequences if sequence.finish_reason is None]

    @property
    def peak_tokens(self) -> int:
        """Tokens with keys and values at the end: the last one drawn is never computed."""
        return self.sequences[0].num_prompt + self.max_tokens - 1

    def move_to(self, state: GroupState) -> None:
        """Change the state, along `TRANSITIONS` only."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state

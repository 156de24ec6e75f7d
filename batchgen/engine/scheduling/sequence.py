"""Sequences and the groups they are scheduled in.

        tokens   [ prompt ……………………… | generated ………… ]
                 0           num_computed              num_tokens
                 └─ keys and values ──┘└── pending ───┘
                    are in the pool       computed next

One rule covers prefill, chunked prefill, decode and restart after preemption: pending tokens are
computed until `num_computed` equals `num_tokens`; then one token is drawn from the last logits.

A group holds the sequences of one request: one answer, n samples, or the beams of a search. It
starts as one sequence, its prompt. When the prompt is computed, it forks into as many sequences as
are needed, which share the prompt's blocks. A group is admitted, preempted, swapped and resumed as
a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self, TypeVar

from batchgen.core.params import SamplingParams
from batchgen.core.rows import FinishReason

NO_ROW = -1


class GroupState(StrEnum):
    """The state of a group; `TRANSITIONS` says what may follow."""

    WAITING = "waiting"  #: No blocks held: new, or preempted to be computed again.
    RUNNING = "running"  #: Holds blocks and table rows; part of the steps.
    SWAPPED = "swapped"  #: Preempted; the host pool holds its keys and values.
    FINISHED = "finished"  #: Ended or aborted; holds nothing.


TRANSITIONS = {
    GroupState.WAITING: {GroupState.RUNNING, GroupState.FINISHED},
    GroupState.RUNNING: {GroupState.WAITING, GroupState.SWAPPED, GroupState.FINISHED},
    GroupState.SWAPPED: {GroupState.RUNNING, GroupState.FINISHED},
    GroupState.FINISHED: set[GroupState](),
}


class Companion(Protocol):
    """State of a growing answer besides its tokens; it forks with the sequence."""

    def fork(self) -> Self:
        """Return an independent copy."""
        ...


Item = TypeVar("Item")


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One prompt with one answer as it grows."""

    # The key of its group and of the request.
    key: int
    # Its number in the group; with the seed it selects the random numbers.
    index: int
    # Prompt, then generated.
    tokens: list[int]
    num_prompt: int
    num_computed: int = 0
    # Row of the block tables while running, set by the scheduler.
    table_row: int = NO_ROW
    # Cumulative log-probability of the generated tokens; a beam's final score once it ended.
    score: float = 0.0
    finish_reason: FinishReason | None = None
    # Keys of its full blocks, as far as they are computed; see `PrefixCache`.
    keys: list[bytes] = field(default_factory=list)
    # The engine's record of the answer; the scheduler never looks at it.
    companion: Companion | None = None

    @property
    def num_tokens(self) -> int:
        """The number of tokens known so far."""
        return len(self.tokens)

    @property
    def num_generated(self) -> int:
        """The number of tokens of the answer so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def pending(self) -> int:
        """The number of tokens that are known but not computed yet."""
        return len(self.tokens) - self.num_computed

    @property
    def generated(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[self.num_prompt :]

    def append(self, token: int, logprob: float) -> None:
        """Add one drawn token."""
        self.tokens.append(token)
        self.score += logprob

    def fork(self, index: int) -> Sequence:
        """Return a copy that grows on its own, without a table row yet."""
        return Sequence(
            key=self.key,
            index=index,
            tokens=self.tokens.copy(),
            num_prompt=self.num_prompt,
            num_computed=self.num_computed,
            score=self.score,
            keys=self.keys.copy(),
            companion=self.companion.fork() if self.companion is not None else None,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class SequenceGroup:
    """The sequences of one request; admitted, preempted and resumed as a whole."""

    # The request's key.
    key: int
    params: SamplingParams
    # The most tokens of each answer; limited by the context.
    max_tokens: int
    # One until the prompt is computed, then `width` of them.
    sequences: list[Sequence]
    # Sequences that grow at once: samples, or beams.
    width: int = 1
    # As the request's.
    job: str = ""
    salt: str = ""
    # Set after a preemption, while only the first unfinished sequence is computed again: up to so
    # many tokens, then the others fork from it. None while each sequence has its own table row.
    shared_tokens: int | None = field(default=None, init=False)
    # Position in the order of arrival, set by the scheduler.
    arrival: int = field(default=-1, init=False)
    state: GroupState = field(default=GroupState.WAITING, init=False)
    # True if the request ends with an error.
    failed: bool = field(default=False, init=False)
    # Counters for the row's `KVUse`.
    preemptions: int = field(default=0, init=False)
    copies: int = field(default=0, init=False)
    # Prompt tokens found in the prefix cache when it was first admitted; None before that.
    cached_tokens: int | None = field(default=None, init=False)

    @classmethod
    def of_prompt(
        cls,
        key: int,
        prompt: list[int],
        params: SamplingParams,
        *,
        max_tokens: int,
        job: str = "",
        salt: str = "",
    ) -> SequenceGroup:
        """Return a group of one sequence, the prompt."""
        sequence = Sequence(key=key, index=0, tokens=prompt, num_prompt=len(prompt))
        return cls(
            key=key,
            params=params,
            max_tokens=max_tokens,
            sequences=[sequence],
            width=params.width,
            job=job,
            salt=salt,
        )

    @property
    def unfinished(self) -> list[Sequence]:
        """The sequences that still grow."""
        return [sequence for sequence in self.sequences if sequence.finish_reason is None]

    @property
    def computing(self) -> list[Sequence]:
        """The sequences that are computed now; each has a table row while the group runs."""
        return self.unfinished[:1] if self.shared_tokens is not None else self.unfinished

    def goal(self, sequence: Sequence) -> int:
        """Return the number of tokens up to which `sequence` is to be computed now."""
        return sequence.num_tokens if self.shared_tokens is None else self.shared_tokens

    @property
    def slots(self) -> int:
        """The most sequences that it may compute at once from now on.

        For beams this is always `width`, because their number can grow again.
        """
        beams = self.params.num_beams > 1
        return self.width if beams or self.is_prompt else len(self.unfinished)

    @property
    def is_prompt(self) -> bool:
        """True while no token has been drawn."""
        return len(self.sequences) == 1 and self.sequences[0].num_generated == 0

    @property
    def wants_prompt_logprobs(self) -> bool:
        """True while prompt tokens that need log-probabilities are still to be computed."""
        first = self.computing[0] if self.params.prompt_logprobs is not None else None
        return first is not None and first.num_computed < self.num_prompt - 1

    @property
    def num_prompt(self) -> int:
        """The number of tokens of the prompt."""
        return self.sequences[0].num_prompt

    @property
    def num_generated(self) -> int:
        """The number of tokens of its longest answer so far."""
        return max(sequence.num_generated for sequence in self.sequences)

    @property
    def num_drawn(self) -> int:
        """The number of generated tokens of all of its sequences."""
        return sum(sequence.num_generated for sequence in self.sequences)

    @property
    def peak_tokens(self) -> int:
        """The number of tokens with keys and values at the end; the last one drawn has none."""
        return self.num_prompt + self.max_tokens - 1

    def forget_computed(self) -> None:
        """Note that all keys and values are lost.

        If several sequences grow, their common tokens are computed once, then the rest.
        """
        growing = self.unfinished
        for sequence in growing:
            sequence.num_computed = 0
        self.shared_tokens = None
        if len(growing) > 1:
            alike = common_length([sequence.tokens for sequence in growing])
            self.shared_tokens = min(alike, *(sequence.num_tokens - 1 for sequence in growing))

    def move_to(self, state: GroupState) -> None:
        """Change the state, along `TRANSITIONS` only."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state


def common_length(lists: list[list[Item]]) -> int:
    """Return how many first items all of `lists` have in common."""
    columns = enumerate(zip(*lists, strict=False))
    return next((i for i, items in columns if len(set(items)) > 1), min(map(len, lists)))

"""The mean length of an input's rows, from a sample; it tells how much work a shard is."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.core.rows import InputRow

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLengths:
    """The mean number of tokens of a row."""

    prompt_tokens: float = 0.0
    # upper bound for all answers of a row together; None if no row has max_tokens
    answer_tokens: float | None = None


class LengthSample:
    """A sum over the sampled rows; `lengths` are their means."""

    def __init__(self) -> None:
        self._rows = 0
        self._characters = 0
        self._bounded = 0
        self._bounds = 0

    def add(self, row: InputRow) -> None:
        """Add one row."""
        params = row.params
        self._rows += 1
        self._characters += prompt_characters(row)
        if params.max_tokens is not None:
            self._bounded += 1
            self._bounds += params.max_tokens * max(params.n, params.num_beams)

    @property
    def lengths(self) -> RowLengths:
        """The means so far."""
        tokens = self._characters / CHARACTERS_PER_TOKEN
        return RowLengths(
            prompt_tokens=tokens / self._rows if self._rows else 0.0,
            answer_tokens=self._bounds / self._bounded if self._bounded else None,
        )


def prompt_characters(row: InputRow) -> int:
    """Return the number of characters in the messages or the prompt; an estimate for token ids."""
    if row.prompt_token_ids is not None:
        return CHARACTERS_PER_TOKEN * len(row.prompt_token_ids)
    if row.messages is not None:
        return sum(len(message["content"]) for message in row.messages)
    return len(row.prompt or "")

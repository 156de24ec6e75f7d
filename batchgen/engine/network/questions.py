"""The token sequences that the probe and the fusing of layers use as input.

    position   0 ┄┄┄┄┄┄┄┄ 24        t - 4 ┄ t ┄ t + 4               longest - 8 ┄ longest
               two at the start     one across each threshold t     one at the end

Some models change at a certain position: they scale queries, stretch rotations, or have a table
that ends. The position is a number in the config, and sequences near the start do not show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

LENGTH = 24  # tokens of the longer sequence at the start; more, up to LONGEST, to exceed a window
LONGEST = 160
SPAN = 8  # tokens of each later sequence
# A number of the config may be a threshold if its name contains one of these.
NAMES = ("position", "length", "seq", "context", "ctx", "scale")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One sequence of tokens at consecutive positions."""

    tokens: Ints
    # Position of the first token; no tokens come before it.
    first: int

    @property
    def positions(self) -> Ints:
        """The position of each token."""
        return np.arange(self.first, self.first + len(self.tokens))


def ask(config: Any, *, vocabulary: int, longest: int, windows: list[int]) -> list[Question]:
    """Return the sequences for a model of this text config, the longest sequence first.

    `longest` is the model's context in tokens; `windows` are the windows of its attention.
    """
    length = min(max(LENGTH, min(windows, default=0) + SPAN), LONGEST, longest)
    lengths = {0: length, **dict.fromkeys(far(config, longest), SPAN)}
    draw = np.random.default_rng(0).integers
    questions = [
        Question(tokens=draw(0, vocabulary, size), first=first) for first, size in lengths.items()
    ]
    questions.insert(1, Question(tokens=draw(0, vocabulary, length // 2 + 1), first=0))
    return questions


def far(config: Any, longest: int) -> list[int]:
    """Return the first positions of spans across thresholds of `config` or before `longest`."""
    thresholds = {each for each in _numbers(config.to_dict()) if each < longest}
    starts = {each - SPAN // 2 for each in thresholds} | {longest - SPAN}
    return sorted(start for start in starts if 0 < start <= longest - SPAN)


def _numbers(values: dict[str, Any]) -> Iterator[int]:
    """Yield the whole numbers of `values`, at any depth, whose names may mean positions."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif _is_whole(value) and any(part in str(name) for part in NAMES):
            yield int(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())

"""The token sequences that a model and its layers are asked when it loads.

    position   0 ┄┄┄┄┄┄┄┄ 24        t - 4 ┄ t ┄ t + 4               longest - 8 ┄ longest
               two at the start     one across each threshold t     one at the end

Some models compute otherwise from a position on: they scale queries, stretch rotations, or have a
table that ends. Such a position stands in the config, and near the start nothing of it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

LENGTH = 24  # tokens of the longer sequence at the start; more where a window can be looked past
LONGEST = 160
SPAN = 8  # tokens of a sequence further on
# A number of the config may be a threshold where its name holds one of these.
NAMES = ("position", "length", "seq", "context", "ctx", "scale")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One sequence of tokens at consecutive positions."""

    tokens: Ints
    # Position of the first token; those before it do not exist.
    first: int

    @property
    def positions(self) -> Ints:
        """The position of each token."""
        return np.arange(self.first, self.first + len(self.tokens))


def ask(config: Any, *, vocabulary: int, longest: int, windows: list[int]) -> list[Question]:
    """Return the questions to a model of this text config, the longest question first.

    `longest` is the model's context in tokens; `windows` are those of its attention.
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
    """Return the first positions of spans that cross a threshold of `config`, or end `longest`."""
    thresholds = {each for each in _numbers(config.to_dict()) if each < longest}
    starts = {each - SPAN // 2 for each in thresholds} | {longest - SPAN}
    return sorted(start for start in starts if 0 < start <= longest - SPAN)


def _numbers(values: dict[str, Any]) -> Iterator[int]:
    """Yield the whole numbers of `values`, at any depth, whose names may be those of positions."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif _is_whole(value) and any(part in str(name) for part in NAMES):
            yield int(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())

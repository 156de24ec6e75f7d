"""Find names that are spelled nearly like a known name, and so are probably mistakes.

Names are compared without case and without `_`, `-`, `.` and blanks, so `maxTokens` equals
`max_tokens`. A mistake is a letter that is wrong, missing or added, or two neighbours that are
swapped:

    letters of the known name     mistakes
    1, 2                          none: too many short words are similar
    3 to 5                        one, and only a swap: `top_n` is not taken for `top_p`
    6 to 10                       one
    11 and more                   two, the second only behind a first letter that is right

A known name with one more word, such as `temperature_c`, is another name, not a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

SHORTEST: Final = 3  # letters; shorter names are never taken for misspelt
LONG_ENOUGH_FOR_ONE: Final = 6
LONG_ENOUGH_FOR_TWO: Final = 11
_REMEMBERED: Final = 4_096  # words
_COMPARED: Final = 64  # characters of a word that are compared
_SEPARATORS: Final = re.compile(r"[\s_.\-]+")


class Spelling:
    """Finds misspelt known names. `ordinary` words are similar to one, but mean something else."""

    def __init__(self, names: Iterable[str], *, ordinary: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._ordinary = frozenset(map(_letters, ordinary))
        by_letters = {_letters(name): name for name in sorted(self._names)}
        self._by_letters = {key: by_letters[key] for key in by_letters if len(key) >= SHORTEST}
        self._longest = max(map(len, self._names), default=0) + 2 * SHORTEST
        self._found = lru_cache(_REMEMBERED)(self._find)

    def meant(self, word: str) -> str | None:
        """Return the known name that `word` misspells, None if it is known or misspells none."""
        if len(word) > self._longest:  # not cached, because it may be a megabyte
            return None
        return self._found(word)

    def _find(self, word: str) -> str | None:
        letters = _letters(word)
        if word in self._names or letters in self._ordinary:
            return None
        if (same := self._by_letters.get(letters)) is not None:
            return same
        mistakes = {
            name: _mistakes(letters, each)
            for each, name in self._by_letters.items()
            if not _is_qualified(word, name)
        }
        near = [(number, name) for name, number in mistakes.items() if number is not None]
        return min(near)[1] if near else None


def suggestion(word: str, names: Iterable[str]) -> str:
    """Return ' Did you mean …?' for an unknown word, '' if no name is similar."""
    close = get_close_matches(word[:_COMPARED], names, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _is_qualified(word: str, name: str) -> bool:
    """Return whether a word is a known name with one more word, such as `temperature_c`."""
    words, known = _words(word), _words(name)
    return len(words) > len(known) and known in (words[: len(known)], words[-len(known) :])


def _words(text: str) -> list[str]:
    return [part for part in _SEPARATORS.split(text.casefold()) if part]


def _letters(word: str) -> str:
    return "".join(_words(word))


def _mistakes(word: str, name: str) -> int | None:
    """Return the number of mistakes in a misspelt name, None if it is another word."""
    most = 2 if len(name) >= LONG_ENOUGH_FOR_TWO and word[:1] == name[0] else 1
    # This excludes most words quickly: one mistake removes one letter, adds one, or both.
    if abs(len(word) - len(name)) > most or len(set(word) ^ set(name)) > 2 * most:
        return None
    number = _distance(word, name)
    if number > most or (len(name) < LONG_ENOUGH_FOR_ONE and sorted(word) != sorted(name)):
        return None
    return number


def _distance(word: str, name: str) -> int:
    """Return the restricted Damerau-Levenshtein distance of two words."""
    rows = [list(range(len(name) + 1))]
    for i, letter in enumerate(word, 1):
        above = rows[-1]
        row = [i]
        for j, other in enumerate(name, 1):
            best = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == name[j - 2] and word[i - 2] == other:
                best = min(best, rows[i - 2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]

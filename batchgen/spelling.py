"""Names that are spelled nearly like a known one, and so are taken for a mistake.

Letters are compared without case and without `_`, `-`, `.` and blanks, so `maxTokens` is
`max_tokens`. Of what is left, a mistake is a letter that is wrong, missing or added, or two
neighbours that are swapped:

    letters of the known name     mistakes
    1, 2                          none: any short word would come near
    3 to 5                        one, and only a swap: `top_n` is no misspelt `top_p`
    6 to 10                       one
    11 and more                   two, the second only behind a first letter that is right

A known name with a further word, such as `temperature_c`, is a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

SHORTEST: Final = 3  # letters of a name that can be misspelt
LONG_ENOUGH_FOR_ONE: Final = 6
LONG_ENOUGH_FOR_TWO: Final = 11
_REMEMBERED: Final = 4_096  # words
_COMPARED: Final = 64  # characters of a word that are looked at
_SEPARATORS: Final = re.compile(r"[\s_.\-]+")


class Spelling:
    """Known names, and `ordinary` words that come near one of them and mean something else."""

    def __init__(self, names: Iterable[str], *, ordinary: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._ordinary = frozenset(map(_letters, ordinary))
        by_letters = {_letters(name): name for name in sorted(self._names)}
        self._by_letters = {key: by_letters[key] for key in by_letters if len(key) >= SHORTEST}
        self._longest = max(map(len, self._names), default=0) + 2 * SHORTEST
        self._found = lru_cache(_REMEMBERED)(self._find)

    def meant(self, word: str) -> str | None:
        """Return the known name that `word` misspells; None for known names and other words."""
        if len(word) > self._longest:  # and is not remembered: it may be a megabyte
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
    """Return ' Did you mean …?' for a word that is wrong in any case, '' where no name is near."""
    close = get_close_matches(word[:_COMPARED], names, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _is_qualified(word: str, name: str) -> bool:
    """Tell whether a word is a name and a further word, such as `temperature_c`."""
    words, known = _words(word), _words(name)
    return len(words) > len(known) and known in (words[: len(known)], words[-len(known) :])


def _words(text: str) -> list[str]:
    return [part for part in _SEPARATORS.split(text.casefold()) if part]


def _letters(word: str) -> str:
    return "".join(_words(word))


def _mistakes(word: str, name: str) -> int | None:
    """Count the mistakes of a word that misspells a name, None where it is another word."""
    most = 2 if len(name) >= LONG_ENOUGH_FOR_TWO and word[:1] == name[0] else 1
    # Most words are told apart by this: a mistake takes one letter away, or adds one, or both.
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

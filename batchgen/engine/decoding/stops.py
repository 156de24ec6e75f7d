"""The text of an answer after its prompt, and the search for stop strings in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

PARTIAL = 32  # after so many tokens, bytes that form no character are taken as they are
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # a decoder's sign for bytes that are no character yet

Decode = Callable[[Sequence[int]], str]


def read(decode: Decode, ids: Sequence[int], *, before: Sequence[int]) -> str:
    """Return the text of `ids` as `decode` reads it after the tokens `before`."""
    if not before:
        return decode(ids)
    context, whole = decode(before), decode([*before, *ids])
    return whole[len(context) :] if whole.startswith(context) else decode(ids)


class StopScanner:
    """The text of one answer as its tokens come, searched for stop strings.

        text   … already searched …│ piece          a stop string may begin in the last
                            └ reach ┘               `reach` characters of the searched text

    The text is searched, not the tokens, because a token may hold part of a character, or the
    end of one stop string and the beginning of another.
    """

    def __init__(
        self,
        decode: Decode,
        stop: Sequence[str],
        *,
        before: Sequence[int] = (),
        plain: Decode | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        """Search for `stop` in the text that `decode` returns after the tokens `before`.

        If `decode` shows the names of special tokens, `hidden` are these names, and `plain` decodes
        without them.
        """
        self._plain = plain
        self._hidden = hidden
        self._decode = decode
        self._stop = stop
        self._reach = max(map(len, stop)) - 1
        self._before = list(before)
        self._ids = list(before)
        # ids[start:end] are decoded again, because a token's text depends on the tokens before.
        self._start, self._end = 0, len(before)
        self._context = decode(before) if before else ""
        self._text = ""
        self._from = 0  # no stop string that begins before this character counts

    def fork(self) -> StopScanner:
        """Return an independent copy."""
        other = copy(self)
        other._ids = self._ids.copy()
        return other

    def push(self, token: int, *, counts: bool = True) -> str | None:
        """Take the next token; if a stop string ends the answer, return the text before it.

        If a token does not count, no stop string that begins in the text so far ends the answer.
        """
        self._ids.append(token)
        window = self._decode(self._ids[self._start :])
        held = len(self._ids) - self._end <= PARTIAL and window.endswith(INCOMPLETE)
        if held or len(window) <= len(self._context):
            return None
        searched = len(self._text)
        self._text += window[len(self._context) :]
        self._start, self._end = self._end, len(self._ids)
        self._context = self._decode(self._ids[self._start : self._end])
        if not counts:
            self._from = len(self._text)
            return None
        return self._cut(self._text, searched)

    def finish(self, *, ended: bool = False) -> str:
        """Return the text of the whole answer, including bytes that form no character.

        If the answer `ended` with an end token, that token is not part of the text.
        """
        ids = self._ids[len(self._before) : len(self._ids) - ended]
        whole = read(self._decode, ids, before=self._before)
        cut = self._cut(whole, len(self._text))
        if cut is None and self._plain is not None:
            return read(self._plain, ids, before=self._before)
        return whole if cut is None else cut

    def _cut(self, text: str, searched: int) -> str | None:
        """Return `text` before its first stop string, None if there is none."""
        start = max(self._from, searched - self._reach)
        found = [at for at in (text.find(s, start) for s in self._stop) if at >= 0]
        return self._shown(text[: min(found)]) if found else None

    def _shown(self, text: str) -> str:
        for name in self._hidden:
            text = text.replace(name, "")
        return text

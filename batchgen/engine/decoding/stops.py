"""The text of an answer behind its prompt, and stop strings wherever they lie in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

PARTIAL = 32  # tokens in a row that end inside a character; then there is none
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # how a decoder shows bytes that are no character yet

Decode = Callable[[Sequence[int]], str]


def read(decode: Decode, ids: Sequence[int], *, before: Sequence[int]) -> str:
    """Return the text of `ids` as `decode` reads it behind the tokens `before`."""
    if not before:
        return decode(ids)
    context, whole = decode(before), decode([*before, *ids])
    return whole[len(context) :] if whole.startswith(context) else decode(ids)


class StopScanner:
    """The text of one answer as its tokens come, searched for stop strings.

        text   … already searched …│ piece          a stop string may begin in the last
                            └ reach ┘               `reach` characters of what was searched

    A token may hold part of a character, or one stop string's end and another's beginning; so the
    text is searched, not the tokens.
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
        """Look for `stop` in what `decode` reads behind the tokens `before`.

        Where that shows the names of special tokens, `hidden`, `plain` reads an answer without.
        """
        self._plain = plain
        self._hidden = hidden
        self._decode = decode
        self._stop = stop
        self._reach = max(map(len, stop)) - 1
        self._before = list(before)
        self._ids = list(before)
        # ids[start:end] are decoded again for context, as a token's text depends on those before.
        self._start, self._end = 0, len(before)
        self._context = decode(before) if before else ""
        self._text = ""
        self._from = 0  # no stop string that begins before this character counts

    def fork(self) -> StopScanner:
        """Return a scanner that goes on from here on its own."""
        other = copy(self)
        other._ids = self._ids.copy()
        return other

    def push(self, token: int, *, counts: bool = True) -> str | None:
        """Take the next token; return the answer where a stop string ended it, without it.

        Where a token does not count, no stop string that begins up to it ends the answer.
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
        """Return the whole answer; what was held back is as whole as it gets.

        The last token of an answer that `ended` with it is no part of the text.
        """
        ids = self._ids[len(self._before) : len(self._ids) - ended]
        whole = read(self._decode, ids, before=self._before)
        cut = self._cut(whole, len(self._text))
        if cut is None and self._plain is not None:
            return read(self._plain, ids, before=self._before)
        return whole if cut is None else cut

    def _cut(self, text: str, searched: int) -> str | None:
        """Return `text` up to its first stop string, None if there is none."""
        start = max(self._from, searched - self._reach)
        found = [at for at in (text.find(s, start) for s in self._stop) if at >= 0]
        return self._shown(text[: min(found)]) if found else None

    def _shown(self, text: str) -> str:
        for name in self._hidden:
            text = text.replace(name, "")
        return text

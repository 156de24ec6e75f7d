"""The state of one answer besides its tokens: text, grammar state and log-probabilities.

It is the companion of a sequence and forks with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.grammar import Grammar
from batchgen.engine.decoding.logprobs import TokenLogprob, TopTokens
from batchgen.engine.decoding.stops import Decode, StopScanner, read


class Answer:
    """A growing answer; `push` takes its tokens and finds out whether one ends it."""

    def __init__(
        self,
        params: SamplingParams,
        *,
        scanner: StopScanner | None,
        grammar: Grammar | None,
        before: Sequence[int] = (),
    ) -> None:
        """Begin an empty answer; `scanner` finds stop strings and is None if there are none.

        `before` are the last tokens of the prompt; the answer's text is decoded after them.
        """
        self.grammar = grammar
        #: One for each token, if the request wants them.
        self.logprobs: list[TokenLogprob] = []
        #: The text before a stop string that ended the answer.
        self.stopped: str | None = None
        self._params = params
        self._scanner = scanner
        self._before = before
        self._has_end = False  # True if the last token is an end token: not part of the text

    @property
    def reads_text(self) -> bool:
        """True if a stop string or a grammar can end the answer, not only a token id."""
        return self._scanner is not None or self.grammar is not None

    def fork(self) -> Answer:
        """Return an independent copy."""
        scanner = self._scanner.fork() if self._scanner is not None else None
        grammar = self.grammar.fork() if self.grammar is not None else None
        other = Answer(self._params, scanner=scanner, grammar=grammar, before=self._before)
        other.logprobs = self.logprobs.copy()
        return other

    def push(self, token: int, *, counts: bool, is_end: bool) -> bool:
        """Take the next token and return whether it ended the answer.

        If `is_end`, the token itself ends it. Stop strings end it only if `counts` is true.
        """
        if self._scanner is not None:
            self.stopped = self._scanner.push(token, counts=counts)
        if is_end:
            self._has_end = True
            return True
        if self.grammar is not None:
            self.grammar.accept(token)
            return self.grammar.is_finished or self.stopped is not None
        return self.stopped is not None

    def note(self, token: int, logprob: float, top: TopTokens | None) -> None:
        """Keep the log-probability of the token, if the request wants it."""
        if self._params.logprobs:
            top = top if top is not None else TopTokens(ids=[], logprobs=[])
            self.logprobs.append(TokenLogprob(id=token, logprob=logprob, top=top))

    def text(self, tokens: list[int], decode: Decode) -> str:
        """Return the text of the whole answer, which consists of `tokens`."""
        if self.stopped is not None:
            return self.stopped
        if self._scanner is not None:
            return self._scanner.finish(ended=self._has_end)
        return read(decode, tokens[:-1] if self._has_end else tokens, before=self._before)

"""Answers that must match a JSON schema or a regular expression: which tokens may come next.

The automata are llguidance's. A grammar is compiled once for each text; each sequence has a matcher
of its own, which forks with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from batchgen.io.params import SamplingParams

REMEMBERED = 64  # compiled grammars
SILENT = 0  # llguidance's log level: what it says of a failure is in `error`


class GrammarError(Exception):
    """A schema or a regular expression that the library does not take."""


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_finished(self) -> bool:
        """Whether nothing more can follow: the answer is complete, or it left the grammar."""
        return bool(self._matcher.is_stopped())

    def fork(self) -> Grammar:
        """Return an independent copy."""
        return Grammar(self._matcher.deep_copy())

    def accept(self, token: int) -> None:
        """Take the answer's next token, one of `allowed` or one that ends it."""
        self._matcher.consume_token(token)

    def allowed(self, vocabulary: int) -> npt.NDArray[np.bool_]:
        """Return which token ids may come next, [vocabulary]; end tokens where it is complete.

        None at all where the matcher gave up, which it does at resource limits.
        """
        if self._matcher.is_error():
            return np.zeros(vocabulary, dtype=np.bool_)
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(packed, count=min(vocabulary, 8 * len(packed)), bitorder="little")
        return np.pad(bits.view(np.bool_), (0, vocabulary - len(bits)))


class GrammarCompiler:
    """Makes grammars for the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> None:
        """Prepare for a transformers `tokenizer` and a model of so many token ids.

        `ends` are the model's own end tokens. Nothing is built before the first grammar comes.
        """
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._built: LLTokenizer | None = None
        self._compiled = lru_cache(REMEMBERED)(self._compile)

    def compile(self, params: SamplingParams) -> Grammar | None:
        """Return the grammar of a row at its start, None where it has none; raise GrammarError."""
        if params.json_schema is not None:
            text = LLMatcher.grammar_from_json_schema(params.json_schema)
        elif params.regex is not None:
            text = LLMatcher.grammar_from_regex(params.regex)
        else:
            return None
        return self._compiled(text).fork()

    def _compile(self, text: str) -> Grammar:
        matcher = LLMatcher(self._tokens(), text, log_level=SILENT)
        if matcher.is_error():
            raise GrammarError(f"The grammar cannot be used: {matcher.get_error()}")
        return Grammar(matcher)

    def _tokens(self) -> LLTokenizer:
        """Build the library's view of the vocabulary: a second or two, once."""
        if self._built is None:
            try:
                self._built = llguidance.hf.from_tokenizer(
                    self._tokenizer,
                    n_vocab=max(self._vocabulary, len(self._tokenizer)),
                    eos_token=self._ends or None,
                )
            except ValueError as error:
                raise GrammarError(f"This tokenizer cannot be guided: {error}") from error
        return self._built

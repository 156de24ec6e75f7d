"""Grammars: the tokens that may come next if an answer must match a JSON schema or a regex.

The automata are llguidance's. A grammar is compiled once for each text; each sequence has its own
matcher, which forks with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import numpy.typing as npt
import torch
from llguidance import LLExecutor, LLMatcher, LLTokenizer

from batchgen.core.params import SamplingParams

REMEMBERED = 64  # compiled grammars
SILENT = 0  # llguidance's log level; failures are in `matcher.get_error()`
WORD = 32  # bits of one word of a mask
# The only white space between two parts of JSON, at most once. Weak models write as much white
# space as they are allowed, so that an indentation would be most of an answer.
SPACE = " "


class GrammarError(Exception):
    """A schema or a regular expression that llguidance does not accept."""


class Grammar:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: LLMatcher, tokens: LLTokenizer) -> None:
        self.matcher = matcher
        self.tokens = tokens

    @property
    def ends(self) -> frozenset[int]:
        """The end tokens, which the grammar allows once the answer is complete."""
        return frozenset(self.tokens.eos_tokens)

    @property
    def is_broken(self) -> bool:
        """True if the answer left the grammar, or the matcher reached a limit of its resources."""
        return bool(self.matcher.is_error())

    @property
    def is_finished(self) -> bool:
        """True if the answer is complete and nothing more can follow."""
        return bool(self.matcher.is_stopped()) and not self.is_broken

    def fork(self) -> Grammar:
        """Return an independent copy."""
        return Grammar(self.matcher.deep_copy(), self.tokens)

    def accept(self, token: int) -> None:
        """Take the answer's next token; after a forbidden token `is_broken` is true."""
        self.matcher.consume_token(token)


def forbidden(
    grammars: Mapping[int, Grammar], *, rows: int, vocabulary: int
) -> npt.NDArray[np.bool_]:
    """Return a mask [rows, vocabulary] of the token ids that may not come next.

    `grammars` is {row: grammar}; no two rows share one. A row without a grammar forbids nothing, a
    row with a broken grammar forbids everything. If an answer is complete, `Grammar.ends` may
    follow. Ids that the model has but the tokenizer does not are always forbidden.
    """
    size = max(-(-grammar.tokens.vocab_size // WORD) for grammar in grammars.values())
    masks = np.full((rows, size), -1, dtype=np.int32)
    matchers = [(grammar.matcher, row) for row, grammar in grammars.items()]
    _executor(torch.get_num_threads()).unsafe_compute_mask_ptr(
        matchers, masks.ctypes.data, masks.itemsize * size, rows
    )
    # A matcher that reaches a limit in this call would allow an end token in mid-answer.
    masks[[row for row, grammar in grammars.items() if grammar.is_broken]] = 0
    bits = np.unpackbits((~masks).view(np.uint8).reshape(-1), bitorder="little")
    return bits.view(np.bool_).reshape(rows, size * WORD)[:, :vocabulary]


class GrammarCompiler:
    """Makes grammars for the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> None:
        """Prepare for a transformers `tokenizer` and a model of `vocabulary` token ids.

        `ends` are the model's own end tokens. Nothing is built before the first grammar.
        """
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._built: LLTokenizer | None = None
        self._compiled = lru_cache(REMEMBERED)(self._compile)

    def compile(self, params: SamplingParams) -> Grammar | None:
        """Return a new grammar for a row, None if it has none; raise GrammarError."""
        if params.json_schema is None and params.regex is None:
            return None
        return self._compiled(params.json_schema, params.regex).fork()

    def _compile(self, schema: str | None, regex: str | None) -> Grammar:
        if schema is not None:
            text = _schema_grammar(schema)
        else:
            text = LLMatcher.grammar_from_regex(regex or "")
        tokens = self._tokens()
        matcher = LLMatcher(tokens, text, log_level=SILENT)
        if matcher.is_error():
            raise GrammarError(f"The grammar cannot be used: {matcher.get_error()}")
        return Grammar(matcher, tokens)

    def _tokens(self) -> LLTokenizer:
        """Return llguidance's view of the vocabulary; building it once takes one or two seconds."""
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


def _schema_grammar(schema: str) -> str:
    if "x-guidance" in schema:  # the schema sets llguidance's options itself
        return LLMatcher.grammar_from_json_schema(schema)
    try:
        return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": SPACE})
    except ValueError:  # the schema is `true`, or is none, which the matcher reports
        return LLMatcher.grammar_from_json_schema(schema)


@cache
def _executor(threads: int) -> LLExecutor:
    return LLExecutor(threads)

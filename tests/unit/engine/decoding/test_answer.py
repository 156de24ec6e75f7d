"""Answers end at more than token ids, and forks of one share nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.answer import Answer
from batchgen.engine.decoding.grammar import GrammarCompiler
from batchgen.engine.decoding.logprobs import TokenLogprob, TopTokens
from batchgen.engine.decoding.stops import StopScanner

Make = Callable[..., Answer]

LETTERS = ["$", *"abcdefgh"]
END = 0
TOP = TopTokens(ids=[1, 2], logprobs=[-0.5, -1.0])
NONE = TopTokens(ids=[], logprobs=[])


def decode(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids if i != END)


def ids_of(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(LETTERS)}, []))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["$"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="$")
    return GrammarCompiler(tokenizer, len(LETTERS), frozenset({END}))


@pytest.fixture(scope="module")
def make(compiler: GrammarCompiler) -> Make:
    def begun(**params: Any) -> Answer:
        given = SamplingParams(**params)
        scanner = StopScanner(decode, given.stop) if given.stop else None
        return Answer(given, scanner=scanner, grammar=compiler.compile(given))

    return begun


def push(answer: Answer, text: str, *, counts: bool = True) -> list[bool]:
    """Return for each token whether it ended the answer."""
    return [answer.push(t, counts=counts, is_end=t == END) for t in ids_of(text)]


def test_end_tokens_end_it(make: Make) -> None:
    answer = make()
    assert not answer.reads_text
    assert push(answer, "ab$") == [False, False, True]
    assert answer.text(ids_of("ab$"), decode) == "ab"


def test_a_stop_string_ends_it_and_is_cut_off(make: Make) -> None:
    answer = make(stop=("cd",))
    assert answer.reads_text
    assert push(answer, "abcd") == [False, False, False, True]
    assert answer.stopped == "ab"
    assert answer.text(ids_of("abcd"), decode) == "ab"


def test_without_its_stop_string_it_is_whole(make: Make) -> None:
    answer = make(stop=("cd",))
    assert push(answer, "abc$") == [False, False, False, True]
    assert answer.stopped is None
    assert answer.text(ids_of("abc$"), decode) == "abc"


def test_tokens_too_early_to_count_stop_nothing(make: Make) -> None:
    answer = make(stop=("cd",))
    assert not any(push(answer, "cda", counts=False))
    assert push(answer, "bcd") == [False, False, True]
    assert answer.text(ids_of("cdabcd"), decode) == "cdab"


def test_an_end_token_that_completes_a_stop_string_leaves_it_out_too(make: Make) -> None:
    answer = make(stop=("cd",))
    push(answer, "abc")
    assert answer.push(ids_of("d")[0], counts=True, is_end=True)
    assert answer.text(ids_of("abcd"), decode) == "ab"


def test_a_complete_grammar_ends_it(make: Make) -> None:
    answer = make(regex="ab|abc?de")
    assert answer.reads_text
    assert push(answer, "abd") == [False] * 3
    assert push(answer, "e") == [True]


def test_an_end_that_the_model_ignores_ends_what_its_grammar_lets_end(make: Make) -> None:
    answer = make(regex="a+", ignore_eos=True)
    assert push(answer, "aaa") == [False] * 3
    assert answer.push(END, counts=True, is_end=False)


def test_a_token_that_its_grammar_forbids_ends_nothing(make: Make) -> None:
    answer = make(regex="abc")
    assert push(answer, "ad") == [False, False]
    assert answer.grammar is not None and answer.grammar.is_broken


def test_a_stop_string_may_come_before_its_grammar_is_complete(make: Make) -> None:
    answer = make(regex="abcdef", stop=("d",))
    assert push(answer, "abcd") == [False, False, False, True]
    assert answer.text(ids_of("abcd"), decode) == "abc"


class TestLogprobs:
    def test_they_are_kept_where_they_are_wanted(self, make: Make) -> None:
        answer = make(logprobs=True, top_logprobs=2)
        answer.note(4, -0.25, TOP)
        answer.note(5, -2.0, None)
        assert answer.logprobs == [
            TokenLogprob(id=4, logprob=-0.25, top=TOP),
            TokenLogprob(id=5, logprob=-2.0, top=NONE),
        ]

    def test_and_nowhere_else(self, make: Make) -> None:
        answer = make()
        answer.note(4, -0.25, TOP)
        assert answer.logprobs == []


def test_forks_share_nothing(make: Make) -> None:
    answer = make(stop=("cd", "ce"), regex="[a-f]{3,4}", logprobs=True)
    push(answer, "bc")
    answer.note(2, -1.0, None)
    child = answer.fork()
    child.note(3, -2.0, None)
    assert push(child, "d") == [True]
    assert child.text(ids_of("bcd"), decode) == "b"
    assert answer.stopped is None and len(answer.logprobs) == 1
    assert push(answer, "f") == [False]
    assert push(answer.fork(), "c") == [True]
    assert push(answer, "a") == [True]
    assert answer.text(ids_of("bcfa"), decode) == "bcfa"
    assert [one.id for one in child.logprobs] == [2, 3]

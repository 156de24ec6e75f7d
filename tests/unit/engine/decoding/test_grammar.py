"""Guided answers match, end when they are complete, and fork; what cannot be served says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import llguidance.hf
import numpy as np
import pytest
import torch
from llguidance import LLMatcher, LLParserLimits
from transformers import AutoTokenizer

from batchgen.core.params import SamplingParams
from batchgen.engine.decoding.grammar import Grammar, GrammarCompiler, GrammarError, forbidden
from batchgen.engine.decoding.processors import Context, process
from batchgen.engine.decoding.sampler import Draw, draw
from batchgen.engine.scheduling.sequence import Sequence
from tests.support.tiny_models import VOCABULARY, save_tokenizer

MODEL_VOCABULARY = VOCABULARY + 24  # as of a model whose embedding was padded
EOS = 2
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["fox", "dog", "é🎉"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
REGEX = r"(the|a) (quick|lazy) [a-z]{1,6}( é{1,3})?\."


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("tokenizer")
    assert save_tokenizer(path)["<|im_end|>"] == EOS
    loader: Any = AutoTokenizer
    return loader.from_pretrained(path)


@pytest.fixture(scope="module")
def compiler(backend: Any) -> GrammarCompiler:
    return GrammarCompiler(backend, MODEL_VOCABULARY, frozenset({EOS}))


def compiled(compiler: GrammarCompiler, **params: Any) -> Grammar:
    grammar = compiler.compile(SamplingParams(**params))
    assert grammar is not None
    return grammar


def allowed(grammar: Grammar) -> set[int]:
    (row,) = forbidden({0: grammar}, rows=1, vocabulary=MODEL_VOCABULARY)
    return set(np.nonzero(~row)[0].tolist())


def feed(grammar: Grammar, backend: Any, text: str) -> Grammar:
    for token in backend(text)["input_ids"]:
        grammar.accept(token)
    return grammar


def generate(grammar: Grammar, *, seed: int, steps: int = 600) -> tuple[list[int], bool]:
    """Return what a model of random logits says, and whether its answer ended by itself."""
    generator = torch.Generator().manual_seed(seed)
    sequence = Sequence(key=0, index=0, tokens=[5], num_prompt=1)
    params = SamplingParams(temperature=0.8)
    for _ in range(steps):
        logits = 2 * torch.randn(1, MODEL_VOCABULARY, generator=generator)
        one = Draw(
            row=0,
            sequence=sequence,
            params=params,
            seed=seed,
            grammar=grammar,
            ends=frozenset({EOS}),
        )
        drawn = draw(logits, [one])
        assert drawn.valid[0]
        token = int(drawn.tokens[0])
        if token == EOS:
            return sequence.generated, True
        grammar.accept(token)
        sequence.append(token, 0.0)
        if grammar.is_finished:
            return sequence.generated, True
    return sequence.generated, False


@pytest.mark.parametrize("seed", range(6))
def test_random_answers_match_the_schema(
    compiler: GrammarCompiler, backend: Any, seed: int
) -> None:
    tokens, ended = generate(compiled(compiler, json_schema=json.dumps(SCHEMA)), seed=seed)
    assert ended
    answer = json.loads(backend.decode(tokens))
    assert {"name", "age", "kind"} <= set(answer) <= set(SCHEMA["properties"])
    assert isinstance(answer["name"], str) and len(answer["name"]) <= 12
    assert type(answer["age"]) is int and 0 <= answer["age"] <= 150
    assert answer["kind"] in SCHEMA["properties"]["kind"]["enum"]
    tags = answer.get("tags", [])
    assert len(tags) <= 3 and all(type(tag) is bool for tag in tags)


@pytest.mark.parametrize("seed", range(6))
def test_random_answers_match_the_expression(
    compiler: GrammarCompiler, backend: Any, seed: int
) -> None:
    tokens, ended = generate(compiled(compiler, regex=REGEX), seed=seed)
    assert ended
    assert re.fullmatch(REGEX, backend.decode(tokens))


class TestEnding:
    def test_a_complete_answer_is_finished_at_once(
        self, compiler: GrammarCompiler, backend: Any
    ) -> None:
        grammar = feed(compiled(compiler, regex="the fox"), backend, "the fo")
        assert not grammar.is_finished
        assert EOS not in allowed(grammar)
        feed(grammar, backend, "x")
        assert grammar.is_finished
        assert allowed(grammar) == {EOS}

    def test_an_answer_that_could_go_on_may_end(
        self, compiler: GrammarCompiler, backend: Any
    ) -> None:
        grammar = feed(compiled(compiler, regex="a+"), backend, "a")
        assert not grammar.is_finished
        assert EOS in allowed(grammar) and len(allowed(grammar)) > 1
        grammar.accept(EOS)
        assert grammar.is_finished

    def test_min_tokens_holds_even_where_end_tokens_are_ignored(
        self, compiler: GrammarCompiler, backend: Any
    ) -> None:
        grammar = feed(compiled(compiler, regex="a+"), backend, "a")
        scores = torch.zeros(2, MODEL_VOCABULARY)
        contexts = [
            Context(
                params=SamplingParams(min_tokens=minimum, ignore_eos=True),
                tokens=[5, 6],
                num_prompt=1,
                ends=frozenset(),
                grammar=grammar.fork(),
            )
            for minimum in (1, 2)
        ]
        process(scores, contexts)
        assert scores[:, EOS].tolist() == [0.0, -torch.inf]

    def test_every_end_token_of_the_model_ends_it(self, backend: Any) -> None:
        several = GrammarCompiler(backend, MODEL_VOCABULARY, frozenset({0, EOS}))
        grammar = feed(compiled(several, regex="a+"), backend, "a")
        assert {0, EOS} <= allowed(grammar)
        assert grammar.ends == {0, EOS}

    def test_without_any_the_tokenizers_own_does(self, backend: Any) -> None:
        grammar = compiled(GrammarCompiler(backend, VOCABULARY, frozenset()), regex="a?")
        assert grammar.ends == {EOS}


class TestMasks:
    def test_special_tokens_and_ids_of_the_model_alone_are_never_text(
        self, compiler: GrammarCompiler
    ) -> None:
        may = allowed(compiled(compiler, regex=r"(?s:.*)"))
        assert EOS in may and len(may) > 200
        assert not may & {0, 1}
        assert max(may) < VOCABULARY

    def test_a_row_without_a_grammar_forbids_nothing(self, compiler: GrammarCompiler) -> None:
        grammars = {1: compiled(compiler, regex="a"), 3: compiled(compiler, regex="b")}
        masks = forbidden(grammars, rows=5, vocabulary=MODEL_VOCABULARY)
        assert masks.shape == (5, MODEL_VOCABULARY)
        assert not masks[[0, 2, 4]].any()
        assert (~masks[[1, 3]]).sum(-1).tolist() == [1, 1]
        assert (masks[1] != masks[3]).sum() == 2

    def test_a_batch_masks_each_row_by_its_own_state(
        self, compiler: GrammarCompiler, backend: Any
    ) -> None:
        texts = ["", "{", '{"name"', '{"name": "fo', '{"name": "fox", "age": 1'] * 5
        start = compiled(compiler, json_schema=json.dumps(SCHEMA))
        grammars = {i: feed(start.fork(), backend, text) for i, text in enumerate(texts)}
        masks = forbidden(grammars, rows=len(texts), vocabulary=MODEL_VOCABULARY)
        for i, grammar in grammars.items():
            assert set(np.nonzero(~masks[i])[0].tolist()) == allowed(grammar)
        assert len({mask.tobytes() for mask in masks}) == 5

    def test_a_model_with_fewer_ids_than_its_tokenizer(self, backend: Any) -> None:
        grammar = compiled(GrammarCompiler(backend, 300, frozenset({EOS})), regex="(?s:.*)")
        assert forbidden({0: grammar}, rows=1, vocabulary=300).shape == (1, 300)


class TestBroken:
    """A grammar that was left, or a matcher that gave up, must not look like a complete answer."""

    def check(self, grammar: Grammar) -> None:
        assert allowed(grammar) == set()
        assert grammar.is_broken and not grammar.is_finished

    def test_a_token_that_is_forbidden(self, compiler: GrammarCompiler, backend: Any) -> None:
        self.check(feed(compiled(compiler, regex="a+"), backend, "ab"))

    def test_a_limit_that_is_reached_while_tokens_are_looked_for(self, backend: Any) -> None:
        tokens = llguidance.hf.from_tokenizer(backend, n_vocab=MODEL_VOCABULARY)
        text = LLMatcher.grammar_from_regex("(?s:.*)")
        limits = LLParserLimits(max_lexer_states=3)
        grammar = Grammar(LLMatcher(tokens, text, log_level=0, limits=limits), tokens)
        assert not grammar.is_broken
        self.check(grammar)


class TestWhiteSpace:
    """One line with at most a space between its parts: all white space of a document is bounded."""

    VALUE = {"name": "fox", "age": 7, "kind": "dog", "tags": [True, False]}  # noqa: RUF012

    @pytest.mark.parametrize("schema", [SCHEMA, {"const": VALUE}], ids=["object", "const"])
    @pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
    def test_one_line_is_allowed(
        self,
        compiler: GrammarCompiler,
        backend: Any,
        schema: dict[str, Any],
        separators: tuple[str, str],
    ) -> None:
        text = json.dumps(self.VALUE, separators=separators)
        grammar = compiled(compiler, json_schema=json.dumps(schema))
        assert feed(grammar, backend, text).is_finished

    @pytest.mark.parametrize("schema", [SCHEMA, {"const": VALUE}], ids=["object", "const"])
    @pytest.mark.parametrize("text", [" ", "{  ", "{\n", "{\t", '{"name"  ', '{"name": \t'])
    def test_there_is_an_end_to_it(
        self, compiler: GrammarCompiler, backend: Any, schema: dict[str, Any], text: str
    ) -> None:
        grammar = compiled(compiler, json_schema=json.dumps(schema))
        assert not feed(grammar.fork(), backend, text[:-1]).is_broken
        assert feed(grammar, backend, text).is_broken

    def test_a_schema_may_say_otherwise(self, compiler: GrammarCompiler, backend: Any) -> None:
        schema = {**SCHEMA, "x-guidance": {"whitespace_flexible": False}}
        grammar = compiled(compiler, json_schema=json.dumps(schema))
        assert not feed(grammar.fork(), backend, '{"name":"fo').is_broken
        assert feed(grammar, backend, '{"name": "').is_broken


class TestForks:
    def test_they_go_on_independently(self, compiler: GrammarCompiler, backend: Any) -> None:
        grammar = feed(compiled(compiler, regex="(ab|ac)d"), backend, "a")
        before = allowed(grammar)
        child = feed(grammar.fork(), backend, "bd")
        assert child.is_finished
        assert allowed(grammar) == before
        assert feed(grammar, backend, "cd").is_finished

    def test_a_compiled_grammar_begins_anew_each_time(
        self, compiler: GrammarCompiler, backend: Any
    ) -> None:
        first = feed(compiled(compiler, regex="xyz"), backend, "xyz")
        assert first.is_finished
        assert not compiled(compiler, regex="xyz").is_finished


class TestCompiler:
    @pytest.mark.parametrize("schema", ["true", "{}"])
    def test_a_schema_of_anything(
        self, compiler: GrammarCompiler, backend: Any, schema: str
    ) -> None:
        grammar = compiled(compiler, json_schema=schema)
        assert feed(grammar.fork(), backend, '[1, {"a": null}]').is_finished
        assert feed(grammar, backend, "nil").is_broken

    def test_a_row_without_a_grammar(self, compiler: GrammarCompiler) -> None:
        assert compiler.compile(SamplingParams()) is None

    @pytest.mark.parametrize(
        "params",
        [
            {"regex": "("},
            {"json_schema": '{"type": 5}'},
            {"json_schema": "{"},
            {"json_schema": "[]"},
            {"json_schema": '{"$ref": "http://example.com/schema"}'},
        ],
    )
    def test_what_the_library_refuses(
        self, compiler: GrammarCompiler, params: dict[str, Any]
    ) -> None:
        for _ in range(2):
            with pytest.raises(GrammarError, match="cannot be used"):
                compiler.compile(SamplingParams(**params))

    def test_a_tokenizer_that_the_library_does_not_know(self) -> None:
        class Slow:
            def __len__(self) -> int:
                return 10

        with pytest.raises(GrammarError, match="cannot be guided"):
            GrammarCompiler(Slow(), 10, frozenset({1})).compile(SamplingParams(regex="a"))

"""Answers that must match a grammar: a model that knows nothing gives no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.engine import Engine
from tests.support.tiny_models import VOCABULARY, tiny_llama
from tests.unit.engine.conftest import hurried, make_engine, request, run, tokens_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["fox", "dog", "é🎉"]},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
REGEX = r"(the|a) (quick|lazy) [a-z]{1,6}( é{1,3})?\."
HOW: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "top_p": 0.9},
    "hot": {"temperature": 3.0, "repetition_penalty": 1.2, "frequency_penalty": 0.5},
    "samples": {"temperature": 1.0, "n": 3},
    "beams": {"num_beams": 3, "n": 2},
    "reward": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    "ignore_eos": {"temperature": 1.0, "ignore_eos": True, "n": 2},
    "ignore_eos beams": {"num_beams": 3, "ignore_eos": True},
}
BLOCKS = 50  # of 4 tokens: little more than the widest row of 24 needs alone
PROMPTS = ["the dog", "what is the answer to this question?"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with room for JSON in its widest layout."""
    return tiny_llama(tmp_path_factory.mktemp("long"), max_position_embeddings=600)


def guided(*, max_tokens: int) -> list[GenerationRequest]:
    """Return each way of decoding with each grammar."""
    grammars = [{"json_schema": json.dumps(SCHEMA)}, {"regex": REGEX}]
    kinds = [{**how, **grammar} for grammar in grammars for how in HOW.values()]
    return [
        request(key, PROMPTS[key % 2], max_tokens=max_tokens, seed=key, **kind)
        for key, kind in enumerate(kinds)
    ]


def is_valid(text: str) -> bool:
    """Return whether `text` is JSON that SCHEMA describes."""
    value = json.loads(text)
    properties = SCHEMA["properties"]
    return (
        set(SCHEMA["required"]) <= set(value) <= set(properties)
        and isinstance(value["name"], str)
        and len(value["name"]) <= 4
        and type(value.get("age", 0)) is int
        and 0 <= value.get("age", 0) <= 150
        and value["kind"] in properties["kind"]["enum"]
    )


def texts(generation: Generation) -> list[str]:
    assert generation.error is None, generation.error
    return [choice.text for choice in generation.choices]


def token_of(engine: Engine, text: str) -> int:
    (token,) = engine.tokenizer.backend(text)["input_ids"]
    return int(token)


def outcomes(engine: Engine) -> dict[int, list[tuple[str, list[int] | None]]]:
    ended = run(engine, *guided(max_tokens=24))
    assert not [one.error for one in ended.values() if one.error is not None]
    return {
        key: [(choice.text, choice.tokens) for choice in one.choices] for key, one in ended.items()
    }


class TestMatching:
    def test_every_answer_matches_however_it_is_decoded(self, llama: Path) -> None:
        rows = guided(max_tokens=500)
        ended = run(make_engine(llama, max_num_seqs=64), *rows)
        found = set()
        for row in rows:
            answer = ended[row.key]
            assert len(texts(answer)) == row.params.n
            for choice in answer.choices:
                assert choice.finish_reason == "stop"
                if row.params.regex is not None:
                    assert re.fullmatch(REGEX, choice.text)
                else:
                    assert is_valid(choice.text)
                found.add(choice.text)
        assert len(found) > 15

    def test_preemption_changes_nothing(self, llama: Path) -> None:
        undisturbed = outcomes(make_engine(llama, prefix_caching=False, max_num_seqs=64))
        for preemption in ("recompute", "swap"):
            engine = hurried(make_engine(llama, blocks=BLOCKS, preemption=preemption))
            assert outcomes(engine) == undisturbed
            assert engine.stats().preemptions > 0

    def test_answers_are_those_of_the_logits_that_remain(self, llama: Path) -> None:
        engine = make_engine(llama)
        letters = tuple(token_of(engine, letter) for letter in "abcdef")
        for seed in range(5):
            how: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": 1}
            rows: list[dict[str, Any]] = [{"regex": "[a-f]"}, {"allowed_token_ids": letters}]
            asked = [request(key, "the dog", **how, **row) for key, row in enumerate(rows)]
            ended = run(engine, *asked)
            assert tokens_of(ended[0]) == tokens_of(ended[1])

    def test_beams_of_a_finite_language_are_all_of_its_answers(self, llama: Path) -> None:
        engine = make_engine(llama)
        prompt = engine.tokenizer.backend("the dog")["input_ids"]
        how = {"regex": "a|b|c", "num_beams": 5, "n": 5, "length_penalty": 2.0}
        found = run(engine, request(0, "the dog", max_tokens=9, **how))[0]
        loader: Any = AutoModelForCausalLM
        with torch.inference_mode():
            logits = loader.from_pretrained(llama)(torch.tensor([prompt])).logits[0, -1]
        worth = {text: float(logits.log_softmax(-1)[token_of(engine, text)]) for text in "abc"}
        assert texts(found) == sorted(worth, key=worth.__getitem__, reverse=True)
        for choice in found.choices:
            assert choice.score == pytest.approx(worth[choice.text], abs=1e-4)


class TestEnding:
    def test_a_token_limit_cuts_an_answer_short(self, llama: Path) -> None:
        asked = request(0, "the dog", regex="[a-c]{40}", max_tokens=7)
        choice = run(make_engine(llama), asked)[0].choices[0]
        assert choice.finish_reason == "length"
        assert re.fullmatch("[a-c]{7,}", choice.text)

    def test_a_complete_answer_ends_whatever_min_tokens_says(self, llama: Path) -> None:
        asked = request(0, "the dog", regex="ab", min_tokens=20, max_tokens=30)
        assert texts(run(make_engine(llama), asked)[0]) == ["ab"]

    @pytest.mark.parametrize("ignore", [False, True])
    def test_an_answer_that_may_end_goes_on_until_min_tokens(
        self, llama: Path, ignore: bool
    ) -> None:
        engine = make_engine(llama)
        how = {"regex": "[a-z]*", "ignore_eos": ignore, "logit_bias": {2: 100.0}, "max_tokens": 30}
        assert texts(run(engine, request(0, "the dog", **how))[0]) == [""]
        late = run(engine, request(0, "the dog", min_tokens=6, **how))[0]
        assert late.choices[0].finish_reason == "stop"
        assert len(tokens_of(late)) == 7
        assert re.fullmatch("[a-z]{6,}", late.choices[0].text)

    def test_a_stop_string_ends_it_earlier(self, llama: Path) -> None:
        asked = request(0, "the dog", regex="aaa;bbb;[a-z]{9}", stop=(";b",), max_tokens=30)
        assert texts(run(make_engine(llama), asked)[0]) == ["aaa"]


class TestErrors:
    @pytest.mark.parametrize(
        ("field", "text"), [("regex", "("), ("json_schema", '{"type": 5}'), ("json_schema", "{")]
    )
    def test_a_grammar_that_cannot_be_used_is_the_rows_error(
        self, llama: Path, field: str, text: str
    ) -> None:
        engine = make_engine(llama)
        bad = request(0, "the dog", max_tokens=5, **{field: text})
        ended = run(engine, bad, request(1, "the dog", max_tokens=5))
        error = ended[0].error
        assert error is not None and (error.code, error.param) == ("invalid_value", field)
        assert tokens_of(ended[1]) == tokens_of(run(engine, request(1, "the dog", max_tokens=5))[1])

    @pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "n": 3}, {"num_beams": 3}])
    def test_one_that_allowed_tokens_contradict_is_the_rows_error(
        self, llama: Path, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        only = (token_of(engine, "a"),)
        stuck = request(0, "the dog", regex="aab", allowed_token_ids=only, max_tokens=9, **how)
        ended = run(engine, stuck, request(1, "the dog", regex="aab", max_tokens=9, **how))
        assert ended[0].error is not None and ended[0].error.code == "no_token_allowed"
        assert set(texts(ended[1])) == {"aab"}


class TestVocabularies:
    def test_ids_that_only_the_model_has_never_come(self, tmp_path: Path) -> None:
        engine = make_engine(tiny_llama(tmp_path, vocab_size=VOCABULARY + 40))
        network: Any = engine.model.network
        extra = range(VOCABULARY, VOCABULARY + 40)
        bias = dict.fromkeys(extra, 100.0)
        free = run(engine, request(0, "the dog", max_tokens=6, logit_bias=bias))[0]
        assert set(tokens_of(free)) <= set(extra)
        with torch.no_grad():
            network.lm_head.weight[VOCABULARY:] *= 50
        how: list[dict[str, Any]] = [{}, {"temperature": 2.0, "n": 3}, {"num_beams": 3, "n": 2}]
        rows = [
            request(key, "the dog", max_tokens=60, regex=r"(?s:.){5,20}", logit_bias=bias, **each)
            for key, each in enumerate(how)
        ]
        for generation in run(engine, *rows).values():
            assert all(text for text in texts(generation))
            for choice in generation.choices:
                assert max(choice.tokens or []) < VOCABULARY

    def test_every_end_token_of_the_model_ends_an_answer(self, tmp_path: Path) -> None:
        path = tiny_llama(tmp_path)
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
        engine = make_engine(path)
        for end in (0, 2):
            asked = request(0, "the dog", regex="a*", logit_bias={end: 100.0}, max_tokens=9)
            assert tokens_of(run(engine, asked)[0]) == [end]

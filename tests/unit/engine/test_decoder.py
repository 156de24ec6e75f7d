"""Every parameter through a real engine, against plain forwards of the model and transformers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from batchgen.core.rows import Choice, Generation
from batchgen.engine.engine import Engine
from tests.support.reference import generate
from tests.unit.engine.conftest import Models, hurried, make_engine, request, run, tokens_of

PROMPT = [5, 60, 7, 90, 12]
LONG = [3 + (7 * i) % 300 for i in range(90)]
STEPS = 14
#: Changes a row of scores [V], given prompt and answer.
Change = Callable[[Tensor, list[int]], Tensor]


@pytest.fixture(scope="module")
def network(models: Models) -> Any:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(models("llama"), dtype=torch.float32).eval()


@torch.inference_mode()
def logprobs_of(network: Any, tokens: list[int]) -> Tensor:
    """Return the log-probabilities [T, V] after each of `tokens`, by one plain forward."""
    logprobs: Tensor = network(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


@torch.inference_mode()
def greedy(network: Any, change: Change, *, steps: int = STEPS) -> list[int]:
    """Return the likeliest tokens after PROMPT, every one by a forward of all before it."""
    tokens = PROMPT.copy()
    for _ in range(steps):
        logits = network(torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(change(logits, tokens[len(PROMPT) :]).argmax()))
    return tokens[len(PROMPT) :]


def answer(engine: Engine, **params: Any) -> Generation:
    """Return the answer to PROMPT, greedy unless said otherwise; `ends` are ignored by default."""
    values = {"max_tokens": STEPS, "ignore_eos": True, **params}
    generation = run(engine, request(0, PROMPT, **values))[0]
    assert generation.error is None, generation.error
    return generation


def tokens_by_choice(generation: Generation) -> list[list[int]]:
    return [choice.tokens or [] for choice in generation.choices]


def shown(choice: Choice) -> dict[str, Any]:
    """Return the JSON of a choice's log-probabilities."""
    assert choice.logprobs is not None
    value: dict[str, Any] = json.loads(choice.logprobs)
    return value


class TestPenalties:
    def test_repetition_and_min_tokens_are_those_of_transformers(
        self, llama: Path, network: Any
    ) -> None:
        engine = make_engine(llama)
        free = tokens_of(answer(engine))
        engine.ends = frozenset({free[1], free[2]})
        for minimum in (0, 4, 9):
            params = {"repetition_penalty": 1.3, "min_tokens": minimum}
            got = tokens_of(answer(engine, ignore_eos=False, **params))
            expected = generate(
                network,
                PROMPT,
                max_new_tokens=STEPS,
                min_new_tokens=minimum,
                repetition_penalty=1.3,
                eos_token_id=sorted(engine.ends),
            )
            assert got == expected.sequences[0, len(PROMPT) :].tolist()
            assert len(got) > minimum

    def test_presence_and_frequency_count_the_answer(self, llama: Path, network: Any) -> None:
        def penalise(logits: Tensor, so_far: list[int]) -> Tensor:
            for token, times in Counter(so_far).items():
                logits[token] -= 2.0 + 1.5 * times
            return logits

        engine = make_engine(llama)
        got = tokens_of(answer(engine, presence_penalty=2.0, frequency_penalty=1.5))
        assert got == greedy(network, penalise)
        assert got != tokens_of(answer(engine))

    def test_a_reward_repeats(self, llama: Path) -> None:
        got = tokens_of(answer(make_engine(llama), frequency_penalty=-2.0, presence_penalty=-2.0))
        assert max(Counter(got).values()) > 2


class TestTokensAllowed:
    @pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"num_beams": 3}])
    def test_a_bias_forces_a_token(self, llama: Path, how: dict[str, Any]) -> None:
        got = tokens_of(answer(make_engine(llama), logit_bias={77: 100.0}, **how))
        assert got == [77] * STEPS

    def test_a_bias_forbids_tokens(self, llama: Path, network: Any) -> None:
        engine = make_engine(llama)
        likely = set(tokens_of(answer(engine)))

        def without(logits: Tensor, so_far: list[int]) -> Tensor:
            logits[sorted(likely)] = -math.inf
            return logits

        got = tokens_of(answer(engine, logit_bias=dict.fromkeys(likely, -100.0)))
        assert got == greedy(network, without)

    def test_only_allowed_tokens_come(self, llama: Path, network: Any) -> None:
        allowed = (40, 50, 60, 61, 62)

        def only(logits: Tensor, so_far: list[int]) -> Tensor:
            mask = torch.full_like(logits, -math.inf)
            mask[list(allowed)] = 0.0
            return logits + mask

        engine = make_engine(llama)
        assert tokens_of(answer(engine, allowed_token_ids=allowed)) == greedy(network, only)
        sampled = answer(engine, allowed_token_ids=allowed, temperature=5.0, n=4, seed=1)
        assert {token for each in tokens_by_choice(sampled) for token in each} == set(allowed)

    @pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "n": 3}, {"num_beams": 3, "n": 2}])
    def test_where_none_is_allowed_the_row_has_an_error(
        self, llama: Path, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        asked = request(0, PROMPT, allowed_token_ids=(9,), stop_token_ids=(9,), min_tokens=2, **how)
        ended = run(engine, asked, request(1, PROMPT, max_tokens=STEPS, ignore_eos=True))
        assert ended[0].error is not None and ended[0].error.code == "no_token_allowed"
        assert ended[0].choices == []
        assert tokens_of(ended[1]) == tokens_of(answer(engine))

    @pytest.mark.parametrize("how", [{"temperature": 1.0, "n": 3}, {"num_beams": 3, "n": 2}])
    def test_logits_that_are_no_numbers_are_an_error_of_all_its_answers(
        self, llama: Path, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        expected = tokens_of(answer(engine))
        poisoned: Any = engine.model.network
        poisoned.get_input_embeddings().weight.data[350] = math.nan
        asked = request(0, [5, 350, 6], max_tokens=9, **how)
        ended = run(engine, asked, request(1, PROMPT, max_tokens=STEPS, ignore_eos=True))
        assert ended[0].error is not None and ended[0].error.code == "invalid_logits"
        assert tokens_of(ended[1]) == expected


class TestStops:
    @pytest.mark.parametrize("how", [{}, {"stop": ("never",)}])
    def test_a_stop_token_ends_the_answer_and_is_none_of_its_text(
        self, llama: Path, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        free = tokens_of(answer(engine))
        got = answer(engine, stop_token_ids=(free[5], 300), **how)
        end = free.index(free[5]) + 1
        assert tokens_of(got) == free[:end]
        assert got.choices[0].finish_reason == "stop"
        assert got.choices[0].text == engine.tokenizer.decode(free[: end - 1])

    def test_a_stop_token_must_not_come_too_early(self, llama: Path, network: Any) -> None:
        engine = make_engine(llama)
        stops = tuple(tokens_of(answer(engine))[:3])

        def late(logits: Tensor, so_far: list[int]) -> Tensor:
            if len(so_far) < 6:
                logits[list(stops)] = -math.inf
            return logits

        got = tokens_of(answer(engine, stop_token_ids=stops, min_tokens=6))
        assert got == greedy(network, late)[: len(got)]
        assert len(got) > 6 and not set(got[:6]) & set(stops)

    def test_a_stop_string_must_not_come_too_early(self, llama: Path) -> None:
        engine = make_engine(llama)
        free = tokens_of(answer(engine))
        decode = engine.tokenizer.decode
        text = decode(free)
        pairs = [(letter, m) for letter in sorted(set(text) - {"\ufffd"}) for m in range(1, STEPS)]
        how = {"max_tokens": STEPS, "ignore_eos": True}
        asked = [
            request(key, PROMPT, stop=(letter,), min_tokens=minimum, **how)
            for key, (letter, minimum) in enumerate(pairs)
        ]
        ended = run(engine, *asked)
        for key, (letter, minimum) in enumerate(pairs):
            at = text.find(letter, len(decode(free[: minimum - 1])))
            got = ended[key].choices[0]
            assert got.text == (text if at < 0 else text[:at])
            assert got.finish_reason == ("length" if at < 0 else "stop")
            assert len(got.tokens or []) >= minimum

    @pytest.mark.parametrize("how", [{}, {"n": 2, "temperature": 1.0}, {"num_beams": 2, "n": 1}])
    @pytest.mark.parametrize("stop", ["<|im_start|>", "<|im_end|>"])
    def test_a_stop_text_may_be_a_special_token(
        self, llama: Path, stop: str, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        the, special = engine.tokenizer.backend.convert_tokens_to_ids(["the", stop])
        how = {"allowed_token_ids": (the, special), "logit_bias": {special: 20.0}, **how}
        for choice in answer(engine, stop=("never", stop), min_tokens=1, **how).choices:
            assert (choice.tokens, choice.text) == ([the, special], "the")
            assert choice.finish_reason == "stop"

    def test_a_stop_text_may_hold_a_special_token(self, llama: Path) -> None:
        engine = make_engine(llama)
        the, special = engine.tokenizer.backend.convert_tokens_to_ids(["the", "<|im_start|>"])
        how = {"allowed_token_ids": (the, special), "temperature": 5.0, "n": 6, "seed": 1}
        for choice in answer(engine, stop=("he<|im_start|>",), max_tokens=60, **how).choices:
            tokens = choice.tokens or []
            pairs = list(pairwise(tokens))
            assert pairs.index((the, special)) == len(pairs) - 1
            assert choice.text == ("the" * tokens.count(the))[:-2]
            assert choice.finish_reason == "stop"

    def test_each_sample_has_its_own_end(self, llama: Path) -> None:
        engine = make_engine(llama)
        how = {"temperature": 1.0, "n": 6, "seed": 4, "max_tokens": 30}
        free = answer(engine, **how)
        stop = Counter(c for choice in free.choices for c in set(choice.text)).most_common(1)[0][0]
        held = answer(engine, stop=(stop,), **how)
        for mine, whole in zip(held.choices, free.choices, strict=True):
            assert mine.text == whole.text.split(stop)[0]
            assert mine.finish_reason == ("stop" if stop in whole.text else "length")
        assert len({len(tokens) for tokens in tokens_by_choice(held)}) > 1


class TestBeams:
    def test_stop_strings_end_beams_once_they_count(self, llama: Path) -> None:
        engine = make_engine(llama)
        decode = engine.tokenizer.decode
        how = {"num_beams": 4, "n": 4, "max_tokens": 10}
        free = "".join(choice.text for choice in answer(engine, **how).choices)
        stop = tuple(c for c, _ in Counter(free.replace("\ufffd", "")).most_common(6))
        lengths = set()
        for minimum in range(1, 7):
            for choice in answer(engine, stop=stop, min_tokens=minimum, **how).choices:
                tokens = choice.tokens or []
                begin = len(decode(tokens[: minimum - 1]))
                assert not set(decode(tokens[:-1])[begin:]) & set(stop)
                ended = set(decode(tokens)[begin:]) & set(stop)
                assert choice.finish_reason == ("stop" if ended else "length")
                lengths.add(len(tokens) - minimum)
        assert min(lengths) == 0

    def test_running_beams_are_worth_what_the_model_says(self, llama: Path, network: Any) -> None:
        engine = make_engine(llama)
        engine.add(request(0, PROMPT, num_beams=3, max_tokens=STEPS, ignore_eos=True))
        for _ in range(5):
            engine.step()
        beams = engine.scheduler.schedule().drawing
        assert len(beams) == 3
        for beam in beams:
            logprobs = logprobs_of(network, beam.tokens)[len(PROMPT) - 1 : -1]
            expected = logprobs.gather(1, torch.tensor(beam.generated)[:, None]).sum()
            assert beam.score == pytest.approx(float(expected), abs=1e-4)


class TestLogprobs:
    def check(self, engine: Engine, network: Any, choice: Choice, top: int) -> None:
        """Compare a choice's log-probabilities with those of a plain forward."""
        tokens = choice.tokens or []
        expected = logprobs_of(network, PROMPT + tokens)[len(PROMPT) - 1 : -1]
        content = shown(choice)["content"]
        assert len(content) == len(tokens)
        for row, token, one in zip(expected, tokens, content, strict=True):
            assert one["bytes"] == list(engine.tokenizer.token_bytes(token))
            assert one["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
            ranked = row.topk(top)
            likeliest = [bytes(each["bytes"]) for each in one["top_logprobs"]]
            assert likeliest == [engine.tokenizer.token_bytes(i) for i in ranked.indices.tolist()]
            values = [each["logprob"] for each in one["top_logprobs"]]
            assert values == pytest.approx(ranked.values.tolist(), abs=1e-4)

    @pytest.mark.parametrize(
        "how",
        [
            {"top_logprobs": 0},
            {"temperature": 0.6, "top_k": 9, "logit_bias": {70: 6.0}},
            {"temperature": 1.0, "n": 3},
            {"num_beams": 3, "n": 2, "repetition_penalty": 1.2},
            {"regex": "[a-z]{9}"},
        ],
        ids=str,
    )
    def test_they_are_those_of_the_model_itself(
        self, llama: Path, network: Any, how: dict[str, Any]
    ) -> None:
        engine = make_engine(llama)
        how = {"logprobs": True, "top_logprobs": 4, "seed": 2, **how}
        got = answer(engine, **how)
        assert len(got.choices) == how.get("n", 1)
        for choice in got.choices:
            self.check(engine, network, choice, how["top_logprobs"])

    def test_their_bytes_are_those_of_the_text(self, llama: Path) -> None:
        engine = make_engine(llama)
        regex = "(é|🎉|the ){5}"
        choice = answer(engine, logprobs=True, regex=regex, max_tokens=40).choices[0]
        content = shown(choice)["content"]
        assert b"".join(bytes(one["bytes"]) for one in content).decode() == choice.text

    def test_nobody_else_gets_any(self, llama: Path) -> None:
        assert answer(make_engine(llama)).choices[0].logprobs is None


class TestPromptLogprobs:
    def check(self, engine: Engine, network: Any, prompt: list[int], got: Generation) -> None:
        assert got.error is None, got.error
        first, *others = got.choices
        judged = shown(first)["prompt"]
        assert judged[0] is None and len(judged) == len(prompt)
        expected = logprobs_of(network, prompt)
        for row, token, one in zip(expected[:-1], prompt[1:], judged[1:], strict=True):
            assert one["bytes"] == list(engine.tokenizer.token_bytes(token))
            assert one["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
            values = [each["logprob"] for each in one["top_logprobs"]]
            assert values == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)
        assert all("prompt" not in shown(each) for each in others)

    def test_they_are_those_of_a_plain_forward(self, llama: Path, network: Any) -> None:
        engine = make_engine(llama, max_batch_tokens=23, max_num_seqs=8)
        prompts = [LONG, [5], LONG[:40], LONG]
        how: list[dict[str, Any]] = [{}, {}, {"n": 3, "temperature": 1.0}, {"num_beams": 2, "n": 2}]
        asked = [
            request(key, prompt, prompt_logprobs=2, logprobs=True, max_tokens=6, **params)
            for key, (prompt, params) in enumerate(zip(prompts, how, strict=True))
        ]
        for _ in range(2):  # the second time the prefix cache knows all of it
            ended = run(engine, *asked)
            for key, prompt in enumerate(prompts):
                self.check(engine, network, prompt, ended[key])

    def test_a_preemption_loses_none(self, llama: Path, network: Any) -> None:
        engine = hurried(make_engine(llama, blocks=40, max_batch_tokens=16, preemption="recompute"))
        prompts = [LONG[key : key + 70] for key in range(6)]
        asked = [
            request(key, prompt, prompt_logprobs=2, max_tokens=30, ignore_eos=True)
            for key, prompt in enumerate(prompts)
        ]
        ended = run(engine, *asked)
        assert engine.stats().preemptions > 0
        for key, prompt in enumerate(prompts):
            self.check(engine, network, prompt, ended[key])

    def test_alternatives_are_optional(self, llama: Path) -> None:
        value = shown(answer(make_engine(llama), prompt_logprobs=0).choices[0])
        assert value["content"] is None
        assert [one["top_logprobs"] for one in value["prompt"][1:]] == [[]] * 4

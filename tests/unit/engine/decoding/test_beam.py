"""Beam search against transformers' own, and where the two are meant to differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationMixin,
    MinNewTokensLengthLogitsProcessor,
    PretrainedConfig,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.modeling_outputs import CausalLMOutput

from batchgen.core.params import SamplingParams
from batchgen.core.rows import FinishReason
from batchgen.engine.decoding.beam import BeamSearch, BeamStep
from batchgen.engine.scheduling.sequence import Sequence
from tests.support.reference import expected_beams
from tests.support.tiny_models import tiny_llama

WIDTHS = (2, 3, 4, 8)
PENALTIES = (-1.0, 0.0, 0.7, 1.0, 2.0)

Processor = Callable[[Tensor, Tensor], Tensor]


class TableNetwork(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Logits looked up by a hash of all tokens: the same bits however it is batched, and fast."""

    config_class = PretrainedConfig

    def __init__(self, vocabulary: int, *, seed: int, ends: list[int], favour: float) -> None:
        super().__init__(PretrainedConfig(vocab_size=vocabulary))
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.table = torch.randn(997, vocabulary, generator=torch.Generator().manual_seed(seed))
        self.table[:, ends] += favour
        self.calls = 0

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutput:
        self.calls += 1
        rows = torch.zeros(len(input_ids), dtype=torch.int64)
        for column in input_ids.T:
            rows = (rows * 31 + column + 1) % len(self.table)
        return CausalLMOutput(logits=self.table[rows][:, None])


def finish(parent: Sequence, token: int) -> Sequence:
    child = parent.fork(parent.index)
    child.tokens.append(token)
    return child


def stop_at(tokens: Iterable[int]) -> Callable[[Sequence, int], FinishReason | None]:
    ends = frozenset(tokens)
    return lambda _, token: "stop" if token in ends else None


def prompt_of(*tokens: int) -> list[Sequence]:
    return [Sequence(key=0, index=0, tokens=list(tokens), num_prompt=len(tokens))]


def grown(beams: list[Sequence], step: BeamStep) -> list[Sequence]:
    children = []
    for parent, token, score in zip(step.parents, step.tokens, step.scores, strict=True):
        child = finish(beams[parent], token)
        child.score = score
        children.append(child)
    return children


def search(
    network: Any,
    prompt: list[int],
    params: SamplingParams,
    *,
    max_tokens: int,
    ends: list[int],
    processors: Iterable[Processor] = (),
) -> list[Sequence]:
    """Compute every token of every beam again in each step."""
    beams = prompt_of(*prompt)
    running = BeamSearch(params, max_tokens=max_tokens, num_ends=len(ends))
    while True:
        ids = torch.tensor([beam.tokens for beam in beams])
        with torch.no_grad():
            scores = network(ids).logits[:, -1].float().log_softmax(-1)
        for processor in processors:
            scores = processor(ids, scores)
        step = running.advance(scores, beams, stop_at(ends), finish)
        if step.done:
            return running.results()
        beams = grown(beams, step)


def scored(answers: list[Sequence]) -> list[tuple[list[int], float]]:
    return [(answer.generated, answer.score) for answer in answers]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_transformers_to_the_last_bit(
    width: int, length_penalty: float, early_stopping: Any
) -> None:
    name = f"{width} {length_penalty} {early_stopping}"
    for draw, vocabulary in enumerate((9, 20, 700)):
        choices = random.Random(f"{name} {draw}")  # noqa: S311
        ends = choices.sample(range(vocabulary), choices.randint(1, 3))
        prompt = [choices.randrange(vocabulary) for _ in range(choices.randint(1, 4))]
        max_tokens = choices.choice((1, 2, 6, 15))
        count = choices.randint(1, width)
        seed, favour = choices.randrange(1000), choices.choice((0.0, 1.0, 3.0))
        network = TableNetwork(vocabulary, seed=seed, ends=ends, favour=favour)
        expected = expected_beams(
            network,
            prompt,
            num_beams=width,
            num_return_sequences=count,
            max_new_tokens=max_tokens,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=ends,
            pad_token_id=ends[0],
            use_cache=False,
        )
        calls, network.calls = network.calls, 0
        params = SamplingParams(
            n=count,
            num_beams=width,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        )
        found = search(network, prompt, params, max_tokens=max_tokens, ends=ends)
        assert scored(found) == expected
        assert network.calls == calls
        for answer in found:
            at_end = answer.generated[-1] in ends
            assert answer.finish_reason == ("stop" if at_end else "length")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tiny_llama(tmp_path_factory.mktemp("llama"), vocab_size=48)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@pytest.mark.parametrize("repetition_penalty", [1.0, 1.7])
@pytest.mark.parametrize("min_tokens", [0, 6])
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_transformers_on_a_transformer(
    llama: Any, width: int, min_tokens: int, repetition_penalty: float
) -> None:
    prompt, ends, max_tokens = [5, 17, 40, 9, 17], [2, 30, 31, 32], 14
    expected = expected_beams(
        llama,
        prompt,
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=max_tokens,
        min_new_tokens=min_tokens,
        repetition_penalty=repetition_penalty,
        eos_token_id=ends,
    )
    found = search(
        llama,
        prompt,
        SamplingParams(n=width, num_beams=width),
        max_tokens=max_tokens,
        ends=ends,
        processors=[
            RepetitionPenaltyLogitsProcessor(repetition_penalty),
            MinNewTokensLengthLogitsProcessor(len(prompt), min_tokens, ends),
        ],
    )
    assert [tokens for tokens, _ in scored(found)] == [tokens for tokens, _ in expected]
    scores = [score for _, score in expected]
    assert [score for _, score in scored(found)] == pytest.approx(scores, abs=1e-5)
    assert all(len(tokens) >= min_tokens for tokens, _ in expected)


def log(*probabilities: float) -> Tensor:
    """Return a row of log-probabilities; 0 is what a grammar forbids."""
    return torch.tensor([probabilities]).log()


def test_beams_are_best_first_with_their_sums() -> None:
    search = BeamSearch(SamplingParams(n=2, num_beams=2), max_tokens=9, num_ends=1)
    beams = prompt_of(7)
    step = search.advance(log(0.1, 0.6, 0.3), beams, stop_at([]), finish)
    assert (step.parents, step.tokens, step.done) == ([0, 0], [1, 2], False)
    assert step.scores == log(0.6, 0.3)[0].tolist()
    beams = grown(beams, step)
    scores = torch.cat([log(0.3, 0.3, 0.4), log(0.9, 0.1, 0.0)])
    step = search.advance(scores, beams, stop_at([]), finish)
    assert (step.parents, step.tokens) == ([1, 0], [0, 2])
    assert step.scores == pytest.approx(log(0.27, 0.24)[0].tolist())
    assert [beam.tokens for beam in beams] == [[7, 1], [7, 2]]


def test_one_token_ends_the_search_at_once() -> None:
    search = BeamSearch(SamplingParams(n=3, num_beams=3), max_tokens=1, num_ends=1)
    step = search.advance(log(0.1, 0.2, 0.4, 0.3), prompt_of(1), stop_at([3]), finish)
    assert step == BeamStep(parents=[], tokens=[], scores=[], done=True)
    answers = search.results()
    assert [answer.generated for answer in answers] == [[2], [3], [1]]
    assert [answer.finish_reason for answer in answers] == ["length", "stop", "length"]
    assert [answer.index for answer in answers] == [0, 1, 2]


def test_a_vocabulary_smaller_than_the_beams_gives_each_answer_once() -> None:
    search = BeamSearch(SamplingParams(n=4, num_beams=4), max_tokens=1, num_ends=1)
    assert search.advance(log(0.5, 0.3, 0.2), prompt_of(1), stop_at([2]), finish).done
    assert [answer.generated for answer in search.results()] == [[0], [1], [2]]


def test_only_the_first_k_candidates_may_end() -> None:
    search = BeamSearch(SamplingParams(n=2, num_beams=2), max_tokens=9, num_ends=1)
    step = search.advance(log(0.4, 0.3, 0.2, 0.1), prompt_of(1), stop_at([2]), finish)
    assert step.tokens == [0, 1]
    assert search.results() == []


@pytest.mark.parametrize(("max_tokens", "asked"), [(9, [0, 1, 2]), (1, [0, 1])])
def test_no_more_candidates_are_asked_than_matter(max_tokens: int, asked: list[int]) -> None:
    """Of eight: the first two may finish, and in the third the second beam is found."""
    found: list[int] = []

    def ends(_: Sequence, token: int) -> FinishReason | None:
        found.append(token)
        return "stop" if token == 0 else None

    search = BeamSearch(SamplingParams(num_beams=2), max_tokens=max_tokens, num_ends=3)
    row = log(0.3, 0.2, 0.15, 0.1, 0.09, 0.07, 0.05, 0.04)
    search.advance(row, prompt_of(1), ends, finish)
    assert found == asked


def test_all_candidates_end() -> None:
    search = BeamSearch(SamplingParams(n=2, num_beams=2), max_tokens=9, num_ends=4)
    step = search.advance(log(0.1, 0.2, 0.3, 0.4), prompt_of(1), stop_at(range(4)), finish)
    assert step.done
    assert [answer.generated for answer in search.results()] == [[3], [2]]


def test_what_is_forbidden_neither_goes_on_nor_ends() -> None:
    asked: list[int] = []

    def ends(_: Sequence, token: int) -> FinishReason | None:
        asked.append(token)
        return "stop" if token in (3, 4) else None

    search = BeamSearch(SamplingParams(n=4, num_beams=4), max_tokens=9, num_ends=2)
    beams = prompt_of(1)
    step = search.advance(log(0.0, 0.9, 0.1, 0.0, 0.0), beams, ends, finish)
    assert (step.tokens, asked) == ([1, 2], [1, 2])
    beams = grown(beams, step)
    scores = torch.cat([log(0.0, 0.0, 0.0, 0.3, 0.0), log(0.0, 0.0, 0.0, 0.9, 0.0)])
    step = search.advance(scores, beams, ends, finish)
    assert step.done
    assert [answer.generated for answer in search.results()] == [[1, 3], [2, 3]]


def test_a_search_without_any_candidate_ends_without_answers() -> None:
    search = BeamSearch(SamplingParams(n=2, num_beams=2), max_tokens=9, num_ends=1)
    assert search.advance(log(0.0, 0.0, 0.0), prompt_of(1), stop_at([2]), finish).done
    assert search.results() == []


def test_answers_that_end_by_their_text_leave_fewer_beams_and_more_grow_again() -> None:
    search = BeamSearch(SamplingParams(n=3, num_beams=3), max_tokens=9, num_ends=1)
    beams = prompt_of(1)
    row = log(0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04)
    step = search.advance(row, beams, stop_at([0, 1, 3, 4, 5]), finish)
    assert (step.tokens, step.done) == ([2], False)
    beams = grown(beams, step)
    step = search.advance(row, beams, stop_at([]), finish)
    assert (step.parents, step.tokens) == ([0, 0, 0], [0, 1, 2])


def test_only_what_gets_a_place_is_finished() -> None:
    finished: list[list[int]] = []

    def remember(parent: Sequence, token: int) -> Sequence:
        finished.append([*parent.generated, token])
        return finish(parent, token)

    params = SamplingParams(n=2, num_beams=2, early_stopping="never")
    search = BeamSearch(params, max_tokens=3, num_ends=1)
    beams, row = prompt_of(1), log(0.3, 0.5, 0.2)
    for _ in range(3):
        step = search.advance(row.expand(len(beams), 3), beams, stop_at([1]), remember)
        beams = grown(beams, step)
    assert step.done
    # Later answers that score less than both places are never made.
    held = [answer.generated for answer in search.results()]
    assert all(tokens in finished for tokens in held)
    assert len(finished) < 4


def test_a_held_place_is_not_lost_to_an_equal_score() -> None:
    params = SamplingParams(n=2, num_beams=2, length_penalty=0.0, early_stopping="never")
    search = BeamSearch(params, max_tokens=2, num_ends=1)
    beams = prompt_of(1)
    step = search.advance(log(0.25, 0.25, 0.5), beams, stop_at([0]), finish)
    assert step.tokens == [2, 1]
    beams = grown(beams, step)
    search.advance(torch.cat([log(0.5, 0.25, 0.25)] * 2), beams, stop_at([0]), finish)
    assert [answer.generated for answer in search.results()] == [[0], [2, 0]]


@pytest.mark.parametrize(("early_stopping", "steps"), [(True, 2), (False, 4), ("never", 8)])
def test_when_a_search_is_over(early_stopping: Any, steps: int) -> None:
    """Both places are taken in step 2, the worse at -1.20; from there a token costs 2.

    The best beam, at -1.39 by then, is worth less than that per token so far in step 4, and less
    per token of the longest answer in step 8.
    """
    params = SamplingParams(num_beams=2, early_stopping=early_stopping)
    search = BeamSearch(params, max_tokens=10, num_ends=1)
    rows = [log(0.5, 0.2, 0.3)] * 2 + [torch.tensor([[-2.0, -2.1, -9.0]])] * 8
    beams, done = prompt_of(1), []
    for row in rows[:steps]:
        step = search.advance(row.expand(len(beams), 3), beams, stop_at([2]), finish)
        beams = grown(beams, step)
        done.append(step.done)
    assert done == [False] * (steps - 1) + [True]
    assert [answer.generated for answer in search.results()] == [[0, 2]]


def test_a_search_that_could_only_reach_the_worst_place_is_over() -> None:
    search = BeamSearch(SamplingParams(n=2, num_beams=2), max_tokens=9, num_ends=1)
    beams = prompt_of(1)
    step = search.advance(torch.tensor([[-2.0, -1.0, -3.0]]), beams, stop_at([0]), finish)
    scores = torch.tensor([[-1.0, -3.0, -9.0], [-9.0, -9.0, -9.0]])
    step = search.advance(scores, grown(beams, step), stop_at([0]), finish)
    assert (step.scores[0], step.done) == (-4.0, True)
    assert scored(search.results()) == [([1, 0], -1.0), ([0], -2.0)]


def test_of_equal_candidates_those_of_the_better_beam_come_first() -> None:
    search = BeamSearch(SamplingParams(num_beams=8), max_tokens=9, num_ends=1)
    beams = prompt_of(1)
    for _ in range(3):
        step = search.advance(torch.full((len(beams), 16), -2.0), beams, stop_at([]), finish)
        assert step.parents == [0] * 8
        beams = grown(beams, step)


@pytest.mark.parametrize("length_penalty", [-60.0, -10.0, 10.0, 60.0])
def test_absurd_penalties_still_give_answers(length_penalty: float) -> None:
    params = SamplingParams(n=2, num_beams=2, length_penalty=length_penalty)
    network = TableNetwork(20, seed=0, ends=[3], favour=-9.0)
    found = search(network, [1], params, max_tokens=30, ends=[3])
    assert [len(tokens) for tokens, _ in scored(found)] == [30, 30]
    (_, first), (_, second) = scored(found)
    assert first >= second

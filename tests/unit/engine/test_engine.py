"""The engine on tiny models: transformers' tokens whatever the batch, and every way a row ends."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.engine import Engine
from tests.unit.engine.conftest import Models, make_engine, request, run, tokens_of


def prompts(count: int, *, seed: int = 0, longest: int = 60) -> list[list[int]]:
    rng = random.Random(seed)  # noqa: S311
    return [[rng.randrange(3, 300) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def test_a_step_mixes_prefills_and_decodes(llama: Path) -> None:
    engine = make_engine(llama)
    engine.add(request(0, [5, 6, 7], max_tokens=9))
    engine.step()
    engine.add(request(1, [8, 9], max_tokens=2))
    plan = engine.scheduler.schedule()
    assert plan.counts.tolist() == [1, 2]


def test_another_seed_draws_another_answer(llama: Path) -> None:
    engine = make_engine(llama)
    asked = [request(k, [5, 6, 7], temperature=1.0, max_tokens=12, seed=k) for k in range(4)]
    answers = run(engine, *asked)
    assert len({tuple(tokens_of(one)) for one in answers.values()}) == 4


def test_the_score_is_the_cumulative_log_probability(llama: Path) -> None:
    engine = make_engine(llama)
    prompt = [5, 6, 7, 8]
    asked = request(0, prompt, temperature=0.7, top_k=20, seed=1, max_tokens=6)
    answer = run(engine, asked)[0]
    tokens = tokens_of(answer)
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(llama, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()
    assert answer.choices[0].score == pytest.approx(float(expected), abs=1e-4)


def test_max_tokens_ends_an_answer_and_is_counted(llama: Path) -> None:
    answer = run(make_engine(llama), request(0, [5, 6, 7], max_tokens=4, ignore_eos=True))[0]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    assert answer.first_token_ms is not None
    assert 0 <= answer.first_token_ms <= answer.latency_ms


def test_without_max_tokens_an_answer_may_fill_the_context(llama: Path) -> None:
    answer = run(make_engine(llama), request(0, list(range(3, 203)), ignore_eos=True))[0]
    assert len(tokens_of(answer)) == 256 - 200
    assert answer.choices[0].finish_reason == "length"


def test_token_ids_come_only_when_asked_for(llama: Path) -> None:
    asked = request(0, [5, 6], max_tokens=2, return_token_ids=False)
    assert run(make_engine(llama), asked)[0].choices[0].tokens is None


class TestEndOfSequence:
    def first_tokens(self, engine: Engine) -> list[int]:
        return tokens_of(run(engine, request(0, [5, 6, 7], max_tokens=8))[0])

    def test_it_ends_the_answer_and_is_no_part_of_the_text(self, llama: Path) -> None:
        engine = make_engine(llama)
        tokens = self.first_tokens(engine)
        engine.ends = frozenset({tokens[3]})
        answer = run(engine, request(1, [5, 6, 7], max_tokens=8))[1]
        assert answer.choices[0].finish_reason == "stop"
        assert tokens_of(answer) == tokens[: tokens.index(tokens[3]) + 1]

    def test_ignore_eos_goes_on(self, llama: Path) -> None:
        engine = make_engine(llama)
        tokens = self.first_tokens(engine)
        engine.ends = frozenset({tokens[3]})
        answer = run(engine, request(1, [5, 6, 7], max_tokens=8, ignore_eos=True))[1]
        assert tokens_of(answer) == tokens

    def test_the_generation_config_may_name_several(self, models: Models, tmp_path: Path) -> None:
        from tests.support.tiny_models import tiny_llama

        path = tiny_llama(tmp_path)
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
        engine = make_engine(path)
        assert engine.ends == {7, 9, engine.tokenizer.eos_token_id}


class TestStopStrings:
    def text(self, engine: Engine) -> str:
        return run(engine, request(0, "the dog", max_tokens=24, ignore_eos=True))[0].choices[0].text

    def test_every_part_of_an_answer_can_stop_it(self, llama: Path) -> None:
        engine = make_engine(llama)
        whole = self.text(engine)
        assert len(whole) > 20
        for start in range(0, len(whole) - 4, 3):
            stop = whole[start : start + 4]
            if "\ufffd" in stop:
                continue
            asked = request(0, "the dog", max_tokens=24, ignore_eos=True, stop=(stop,))
            answer = run(engine, asked)[0]
            assert answer.choices[0].text == whole[: whole.index(stop)]
            assert answer.choices[0].finish_reason == "stop"
            assert len(tokens_of(answer)) <= 24

    def test_a_stop_string_ends_the_work(self, llama: Path) -> None:
        engine = make_engine(llama)
        stop = self.text(engine)[2:4]
        asked = request(0, "the dog", max_tokens=24, ignore_eos=True, stop=("absent", stop))
        assert len(tokens_of(run(engine, asked)[0])) < 24

    def test_text_that_only_begins_a_stop_string_stays(self, llama: Path) -> None:
        engine = make_engine(llama)
        whole = self.text(engine)
        asked = request(0, "the dog", max_tokens=24, ignore_eos=True, stop=(whole[-3:] + "never",))
        answer = run(engine, asked)[0]
        assert answer.choices[0].text == whole
        assert answer.choices[0].finish_reason == "length"


class TestRefusals:
    def error_of(self, engine: Engine, asked: GenerationRequest) -> tuple[str, str]:
        answer = run(engine, asked)[asked.key]
        assert answer.error is not None and answer.choices == [] and answer.usage is None
        return answer.error.code, answer.error.message

    def test_an_empty_prompt(self, llama: Path) -> None:
        assert self.error_of(make_engine(llama), request(0, ""))[0] == "empty_prompt"

    def test_a_prompt_that_leaves_no_room_for_an_answer(self, llama: Path) -> None:
        engine = make_engine(llama)
        code, message = self.error_of(engine, request(0, [5] * 256))
        assert code == "context_length_exceeded"
        assert "256" in message and "257" in message
        assert tokens_of(run(engine, request(1, [5] * 255))[1])

    def test_more_tokens_than_the_context_holds(self, llama: Path) -> None:
        code, message = self.error_of(make_engine(llama), request(0, [5] * 200, max_tokens=57))
        assert code == "context_length_exceeded"
        assert "200 in the prompt, 57 in the answer" in message

    def test_a_row_that_the_pool_can_never_hold(self, llama: Path) -> None:
        engine = make_engine(llama, blocks=10)
        code, message = self.error_of(engine, request(0, [5] * 30, max_tokens=12))
        assert code == "context_length_exceeded"
        assert "KV pool holds 40 tokens" in message
        assert engine.info.max_length == 40
        assert any("--kv-memory" in note for note in engine.info.notes)
        assert len(tokens_of(run(engine, request(1, [5] * 30, ignore_eos=True))[1])) == 11

    def test_a_token_id_that_does_not_exist(self, llama: Path) -> None:
        assert self.error_of(make_engine(llama), request(0, [5, 99_999]))[0] == "invalid_value"

    @pytest.mark.parametrize("field", ["logit_bias", "allowed_token_ids", "stop_token_ids"])
    def test_a_parameter_with_a_token_id_that_does_not_exist(self, llama: Path, field: str) -> None:
        value: Any = {99_999: 1.0} if field == "logit_bias" else (99_999,)
        code, message = self.error_of(make_engine(llama), request(0, [5], **{field: value}))
        assert code == "invalid_value" and field in message

    @pytest.mark.parametrize("field", ["n", "num_beams"])
    def test_more_sequences_than_fit_into_a_step(self, llama: Path, field: str) -> None:
        engine = make_engine(llama, max_num_seqs=4)
        code, message = self.error_of(engine, request(0, [5, 6], **{field: 5}))
        assert code == "invalid_value" and f"'{field}' is 5" in message

    def test_samples_that_the_pool_can_hold_alone_only(self, llama: Path) -> None:
        engine = make_engine(llama, blocks=10)
        code, message = self.error_of(engine, request(0, [5] * 8, n=4, max_tokens=12))
        assert code == "context_length_exceeded" and "12 in each of 4 answers" in message
        # Two whole blocks of prompt are shared, two more are left for each answer.
        answers = run(engine, request(1, [5] * 8, n=4, ignore_eos=True))[1]
        assert [len(choice.tokens or []) for choice in answers.choices] == [9] * 4

    def test_refused_rows_disturb_no_other(self, llama: Path) -> None:
        engine = make_engine(llama)
        alone = tokens_of(run(engine, request(0, [5, 6], max_tokens=5))[0])
        ended = run(engine, request(1, ""), request(0, [5, 6], max_tokens=5), request(2, [5] * 300))
        assert tokens_of(ended[0]) == alone
        assert ended[1].error is not None and ended[2].error is not None


def test_logits_that_are_no_numbers_are_the_error_of_their_row_alone(llama: Path) -> None:
    engine = make_engine(llama)
    asked = [request(key, row, max_tokens=10) for key, row in enumerate(prompts(4))]
    expected = run(engine, *asked)
    poisoned: Any = engine.model.network
    poisoned.get_input_embeddings().weight.data[350] = math.nan
    ended = run(engine, *asked, request(9, [5, 350, 6], max_tokens=10))
    assert ended[9].error is not None and ended[9].error.code == "invalid_logits"
    for key in range(4):
        assert tokens_of(ended[key]) == tokens_of(expected[key])


def test_aborted_rows_are_forgotten_wherever_they_are(llama: Path) -> None:
    engine = make_engine(llama, max_num_seqs=2)
    for key in range(4):
        engine.add(request(key, [5 + key, 6], max_tokens=6, ignore_eos=True))
    engine.add(request(4, ""))
    engine.step()
    engine.add(request(5, ""))
    engine.abort([0, 3, 5, 77])
    ended: list[Generation] = []
    while engine.has_unfinished():
        ended += engine.step()
    assert sorted(one.key for one in ended) == [1, 2]
    engine.add(request(0, [5, 6], max_tokens=1))
    assert run(engine)[0].error is None


def test_a_finished_engine_has_nothing_to_do(llama: Path) -> None:
    engine = make_engine(llama)
    assert not engine.has_unfinished()
    assert engine.step() == []
    assert engine.stats().steps == 0


def test_stats_count_what_happened(llama: Path) -> None:
    engine = make_engine(llama, max_num_seqs=2, prefix_caching=False)
    for key in range(3):
        engine.add(request(key, [5, 6, 7, 8, 9], max_tokens=3, ignore_eos=True))
    engine.step()
    midway = engine.stats()
    assert (midway.running, midway.waiting, midway.steps) == (2, 1, 1)
    assert midway.kv_blocks_used == 4
    assert midway.kv_utilisation == pytest.approx(10 / 16)
    assert midway.sharing_saving == 0.0
    run(engine)
    done = engine.stats()
    assert (done.prompt_tokens, done.generated_tokens) == (15, 9)
    assert (done.running, done.waiting, done.kv_blocks_used) == (0, 0, 0)
    assert done.busy_seconds > 0


def test_info_says_what_the_engine_settled_on(llama: Path) -> None:
    info = make_engine(llama, blocks=20).info
    assert (info.model, info.device, info.dtype) == ("tiny", "cpu", "float32")
    assert (info.block_size, info.num_blocks, info.threads) == (4, 21, 1)


def test_the_pool_is_no_larger_than_its_sequences_could_use(llama: Path) -> None:
    assert make_engine(llama, max_num_seqs=2, kv_memory="0.9").info.num_blocks == 2 * 64 + 1


def test_it_tells_how_far_each_answer_is(llama: Path) -> None:
    engine = make_engine(llama)
    engine.add(request(0, [5, 6, 7], max_tokens=9, ignore_eos=True))
    assert engine.progress() == {}
    engine.step()
    engine.add(request(1, [8, 9], max_tokens=9, n=2, ignore_eos=True, temperature=1.0))
    for _ in range(3):
        engine.step()
    assert engine.progress() == {0: 4, 1: 2 * 3}
    run(engine)
    assert engine.progress() == {}

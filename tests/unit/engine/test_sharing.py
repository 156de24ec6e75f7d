"""Samples, beams, prompts and windows save work: it is computed and stored once, or given back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from batchgen.core.rows import GenerationRequest
from batchgen.engine.engine import Engine
from tests.unit.engine.conftest import Models, hurried, make_engine, request, run, tokens_of

SYSTEM = list(range(20, 60))  # ten blocks of four


def of_job(row: GenerationRequest, job: str, *, salt: str = "") -> GenerationRequest:
    return msgspec.structs.replace(row, job=job, cache_salt=salt)


def step_until_drawn(engine: Engine) -> None:
    while engine.stats().generated_tokens == 0:
        engine.step()


class TestSamples:
    def test_the_prompt_is_computed_once_for_all(self, llama: Path) -> None:
        engine = make_engine(llama)
        prompt = [5 + i % 200 for i in range(101)]
        answer = run(engine, request(0, prompt, n=8, max_tokens=6, temperature=1.0, seed=3))[0]
        assert engine.stats().prompt_tokens == 101
        assert len({tuple(choice.tokens or []) for choice in answer.choices}) > 4
        assert [choice.index for choice in answer.choices] == list(range(8))
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
            101,
            sum(len(choice.tokens or []) for choice in answer.choices),
        )

    def test_of_a_partial_last_block_one_copy_less_than_samples_is_made(self, llama: Path) -> None:
        engine = make_engine(llama)
        engine.add(request(0, [5] * 10, n=4, max_tokens=8, temperature=1.0, ignore_eos=True))
        step_until_drawn(engine)
        assert engine.stats().kv_blocks_used == 3
        assert engine.stats().sharing_saving == pytest.approx(1 - 3 / 12)
        engine.step()
        assert (engine.stats().kv_blocks_used, engine.stats().copies) == (2 + 4, 3)

    def test_of_a_full_last_block_none_is_made(self, llama: Path) -> None:
        engine = make_engine(llama)
        answer = run(engine, request(0, [5] * 8, n=4, max_tokens=4, temperature=1.0))[0]
        assert engine.stats().copies == 0
        assert answer.kv is not None and answer.kv.copies == 0

    def test_each_sample_has_numbers_of_its_own(self, llama: Path) -> None:
        engine = make_engine(llama)
        one = run(engine, request(0, [5, 6], max_tokens=9, temperature=1.0, seed=8))[0]
        many = run(engine, request(1, [5, 6], n=3, max_tokens=9, temperature=1.0, seed=8))[1]
        assert many.choices[0].tokens == one.choices[0].tokens
        assert len({tuple(choice.tokens or []) for choice in many.choices}) == 3


class TestBeams:
    def test_the_best_come_first_with_their_scores(self, llama: Path) -> None:
        engine = make_engine(llama)
        answer = run(engine, request(0, [5, 6, 7], num_beams=4, n=3, max_tokens=12))[0]
        scores = [choice.score or 0.0 for choice in answer.choices]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)

    def test_beams_share_blocks(self, llama: Path) -> None:
        engine = make_engine(llama)
        engine.add(request(0, SYSTEM, num_beams=4, max_tokens=8, ignore_eos=True))
        step_until_drawn(engine)
        engine.step()
        assert engine.stats().sharing_saving > 0.6
        assert engine.stats().running == 4

    def test_a_stop_string_ends_a_beam(self, llama: Path) -> None:
        engine = make_engine(llama)
        free = run(engine, request(0, [5, 6, 7], num_beams=3, max_tokens=12))[0].choices[0]
        stop = free.text[3:5]
        held = run(engine, request(1, [5, 6, 7], num_beams=3, max_tokens=12, stop=(stop,)))[1]
        assert all(stop not in choice.text for choice in held.choices)
        assert "stop" in {choice.finish_reason for choice in held.choices}

    def test_greedy_samples_and_beams_share_a_step(self, llama: Path) -> None:
        engine = make_engine(llama)
        engine.add(request(0, [5, 6], max_tokens=5, ignore_eos=True))
        engine.add(request(1, [7, 8], n=2, temperature=1.0, max_tokens=5, ignore_eos=True))
        engine.add(request(2, [9], num_beams=3, max_tokens=5, ignore_eos=True))
        step_until_drawn(engine)
        plan = engine.scheduler.schedule()
        assert [sequence.key for sequence in plan.drawing] == [0, 1, 1, 2, 2, 2]


class TestPrefixes:
    def test_a_jobs_common_prompt_is_computed_once(self, llama: Path) -> None:
        # A pool that the rows overflow again and again: only the common prompt may not go.
        engine = hurried(make_engine(llama, blocks=40, preemption="recompute"))
        rows = [of_job(request(k, [*SYSTEM, 60 + k], max_tokens=4), "a") for k in range(12)]
        others = [request(100 + k, [100 + 5 * k] * 50, max_tokens=4) for k in range(12)]
        mixed = [row for pair in zip(rows, others, strict=True) for row in pair]
        ended = run(engine, *mixed)
        usages = [ended[row.key].usage for row in rows]
        assert [usage and usage.cached_tokens for usage in usages] == [0] + [40] * 11
        assert engine.stats().prefix_hits == 11 * 40

    def test_rows_of_one_step_share_what_it_computes(self, llama: Path) -> None:
        engine = make_engine(llama)
        for key in range(3):
            engine.add(request(key, [*SYSTEM, 70 + key], max_tokens=2, ignore_eos=True))
        engine.step()
        assert engine.stats().prompt_tokens == 41 + 1 + 1
        assert engine.stats().kv_blocks_used == 10 + 3

    def test_the_same_prompt_again_computes_its_last_token_only(self, llama: Path) -> None:
        engine = make_engine(llama)
        first = run(engine, request(0, SYSTEM[:33], max_tokens=5))[0]
        computed = engine.stats().prompt_tokens
        again = run(engine, request(1, SYSTEM[:33], max_tokens=5))[1]
        assert engine.stats().prompt_tokens == computed + 1
        assert tokens_of(again) == tokens_of(first)

    def test_nothing_is_shared_across_salts(self, llama: Path) -> None:
        engine = make_engine(llama)
        run(engine, of_job(request(0, SYSTEM, max_tokens=2), "a", salt="one"))
        run(engine, of_job(request(1, SYSTEM, max_tokens=2), "a", salt="two"))
        assert engine.stats().prefix_hits == 0

    def test_caching_can_be_turned_off(self, llama: Path) -> None:
        engine = make_engine(llama, prefix_caching=False)
        run(engine, request(0, SYSTEM, max_tokens=2))
        run(engine, request(1, SYSTEM, max_tokens=2))
        assert engine.stats().prompt_tokens == 80
        assert engine.stats().prefix_queries == 0


class TestWindows:
    def test_blocks_that_no_layer_sees_any_more_are_free(self, models: Models) -> None:
        engine = make_engine(models("mistral"))  # every layer sees 20 tokens
        engine.add(request(0, SYSTEM, max_tokens=60, ignore_eos=True))
        most = 0
        while engine.has_unfinished():
            engine.step()
            most = max(most, engine.stats().kv_blocks_used if engine.stats().steps > 1 else 0)
        assert most <= 20 // 4 + 2

    def test_where_one_layer_sees_all_nothing_is_given_back(self, models: Models) -> None:
        engine = make_engine(models("gemma2"))
        engine.add(request(0, SYSTEM, max_tokens=21, ignore_eos=True))
        for _ in range(20):
            engine.step()
        assert engine.stats().kv_blocks_used == 15


def test_a_row_says_what_it_did_to_the_pool(llama: Path) -> None:
    engine = hurried(make_engine(llama, blocks=20, preemption="recompute"))
    rows = [request(k, [5 + k] * 10, n=2, temperature=1.0, max_tokens=20) for k in range(4)]
    ended = run(engine, *rows)
    uses = [ended[k].kv for k in range(4)]
    assert sum(use.preemptions for use in uses if use) == engine.stats().preemptions > 0
    assert sum(use.copies for use in uses if use) == engine.stats().copies > 0
    assert all(use and 0.5 < use.utilisation <= 1.0 for use in uses)
    assert all(use and 0.0 < use.sharing_saving < 0.5 for use in uses)

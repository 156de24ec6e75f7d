from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.engine.row_errors import INVALID_LOGITS
from batchgen_workers.testing import (
    CACHED_TOKENS,
    KV,
    MAX_LENGTH,
    NAN,
    OOM,
    FakeEngine,
    answer_to,
)
from tests.support.holding import Hold

CONFIG = EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=2)


def request(key: int, prompt: str = "hello", **params: object) -> GenerationRequest:
    values = {"temperature": 0.0, "max_tokens": 3, **params}
    return GenerationRequest(key=key, params=SamplingParams(**values), prompt=prompt)  # type: ignore[arg-type]


def run(engine: FakeEngine, *requests: GenerationRequest) -> dict[int, Generation]:
    for each in requests:
        engine.add(each)
    ended: dict[int, Generation] = {}
    while engine.has_unfinished():
        ended.update({generation.key: generation for generation in engine.step()})
    return ended


def test_every_row_ends_once_with_its_words() -> None:
    ended = run(FakeEngine(CONFIG), *(request(key, f"prompt {key}") for key in range(9)))
    texts = {key: generation.choices[0].text for key, generation in ended.items()}
    assert texts == {key: answer_to(f"prompt {key}", seed=None, tokens=3) for key in range(9)}


def test_a_held_engine_ends_so_many_rows_and_no_more(hold: Hold) -> None:
    engine = FakeEngine(CONFIG)
    for key in range(6):
        engine.add(request(key))
    hold.after(3)
    assert [len(engine.step()) for _ in range(9)] == [0, 0, 2, 0, 0, 1, 0, 0, 0]
    assert engine.stats().generated_tokens == 3 * 3 + 2 + 2
    hold.after(1)  # from now on
    assert [len(engine.step()) for _ in range(4)] == [1, 0, 0, 0]
    hold.release()
    assert len(run(engine)) == 2


def test_an_answer_depends_on_the_seed_only_when_it_is_sampled() -> None:
    greedy = run(FakeEngine(CONFIG), request(1, seed=1), request(2, seed=2))
    assert greedy[1].choices == greedy[2].choices
    sampled = run(
        FakeEngine(CONFIG), request(1, seed=1, temperature=1.0), request(2, seed=2, temperature=1.0)
    )
    assert sampled[1].choices != sampled[2].choices


def test_no_more_rows_run_than_fit() -> None:
    engine = FakeEngine(CONFIG)
    for key in range(5):
        engine.add(request(key))
    engine.step()
    assert (engine.stats().running, engine.stats().waiting) == (2, 3)


def test_counters_grow_with_the_work() -> None:
    engine = FakeEngine(CONFIG)
    run(engine, request(1, "two words"), request(2, "two words"))
    stats = engine.stats()
    assert (stats.steps, stats.prompt_tokens, stats.generated_tokens) == (3, 4, 6)
    assert (stats.prefix_queries, stats.prefix_hits) == (4, 2)
    assert (stats.preemptions, stats.copies) == (2, 4)
    assert stats.busy_seconds > 0


def test_every_answer_says_what_it_did_to_the_pool() -> None:
    (ended,) = run(FakeEngine(CONFIG), request(1)).values()
    assert ended.kv == KV
    assert ended.usage is not None
    assert ended.usage.cached_tokens == CACHED_TOKENS


@pytest.mark.parametrize("prompt", ["", "word " * MAX_LENGTH])
def test_a_row_that_cannot_be_computed_is_an_error(prompt: str) -> None:
    ended = run(FakeEngine(CONFIG), request(1, prompt))
    assert ended[1].error is not None
    assert ended[1].choices == []


def test_an_aborted_row_never_ends() -> None:
    engine = FakeEngine(CONFIG)
    engine.add(request(1))
    engine.abort([1, 2])
    assert not engine.has_unfinished()


def test_logits_that_are_not_numbers_end_their_row_as_in_the_real_engine() -> None:
    ended = run(FakeEngine(CONFIG), request(1, NAN), request(2))
    assert ended[1].error == INVALID_LOGITS
    assert ended[2].error is None


def test_rows_that_want_memory_bear_as_many_others_as_they_say() -> None:
    engine = FakeEngine(CONFIG)  # two at once
    assert len(run(engine, *(request(key, f"{OOM}2") for key in range(4)))) == 4
    with pytest.raises(MemoryError):
        run(engine, *(request(key, f"{OOM}1") for key in range(4)))

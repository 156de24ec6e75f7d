"""Blocks are found again by their tokens, and forgotten in a fixed order."""

from __future__ import annotations

import numpy as np
import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.prefixes import DIGEST, JOBS, PrefixCache
from batchgen.engine.scheduling.sequence import Sequence, SequenceGroup

SIZE = 4


def make_cache(
    *, blocks: int = 20, model: str = "model", pool: BlockPool | None = None
) -> PrefixCache:
    return PrefixCache(pool or BlockPool(blocks + 1, SIZE), model=model)


def make_group(tokens: list[int], *, job: str = "", salt: str = "") -> SequenceGroup:
    return SequenceGroup.of_prompt(
        1, tokens.copy(), SamplingParams(), max_tokens=9, job=job, salt=salt
    )


def sequence_of(tokens: list[int]) -> Sequence:
    return make_group(tokens).sequences[0]


def computed(cache: PrefixCache, tokens: list[int], *, salt: str = "") -> list[int]:
    """Return the blocks of a sequence that was computed in one step and then given up."""
    blocks = np.array(cache.pool.allocate(cache.pool.blocks_for(len(tokens))), dtype=np.int32)
    cache.cache_blocks(sequence_of(tokens), salt, blocks, start=0, end=len(tokens))
    cache.pool.release(blocks)
    return [int(block) for block in blocks]


def found(cache: PrefixCache, tokens: list[int], *, salt: str = "", limit: int = 99) -> list[int]:
    return [int(block) for block in cache.match(sequence_of(tokens), salt, limit=limit)]


def numbers(count: int) -> list[int]:
    return list(range(count))


def test_a_prompt_finds_the_whole_blocks_that_it_begins_with() -> None:
    cache = make_cache()
    blocks = computed(cache, numbers(14))
    assert found(cache, numbers(14)) == blocks[:3]
    assert found(cache, numbers(12)) == blocks[:3]
    assert found(cache, numbers(11)) == blocks[:2]
    assert found(cache, [*numbers(7), 0, *numbers(12)[8:]]) == blocks[:1]
    assert found(cache, [9, *numbers(14)[1:]]) == []


def test_equal_blocks_after_different_beginnings_are_not_the_same() -> None:
    cache = make_cache()
    computed(cache, [1, 1, 1, 1, 7, 7, 7, 7])
    assert found(cache, [7, 7, 7, 7]) == []
    assert found(cache, [2, 2, 2, 2, 7, 7, 7, 7]) == []


def test_only_what_lies_within_the_limit_is_found() -> None:
    cache = make_cache()
    blocks = computed(cache, numbers(12))
    assert [len(found(cache, numbers(12), limit=n)) for n in (12, 11, 8, 3)] == [3, 2, 2, 0]
    assert found(cache, numbers(12), limit=11) == blocks[:2]


def test_a_chain_ends_where_a_block_was_forgotten() -> None:
    cache = make_cache(blocks=3)
    head, *_ = computed(cache, numbers(12))
    cache.pool.allocate(2)  # the tail goes first
    assert found(cache, numbers(12)) == [head]


def test_salts_never_share() -> None:
    cache = make_cache()
    one = computed(cache, numbers(8), salt="one")
    assert found(cache, numbers(8), salt="one") == one
    assert found(cache, numbers(8), salt="two") == []
    assert found(cache, numbers(8)) == []


def test_models_never_share() -> None:
    pool = BlockPool(20, SIZE)
    computed(make_cache(pool=pool), numbers(8))
    assert found(make_cache(pool=pool, model="model"), numbers(8))
    assert found(make_cache(pool=pool, model="model+adapter"), numbers(8)) == []


def test_keys_are_long_enough_that_no_two_texts_meet() -> None:
    cache = make_cache()
    sequence = sequence_of(numbers(9))
    cache.match(sequence, "", limit=9)
    assert [len(key) for key in sequence.keys] == [32, 32]
    assert DIGEST == 32


def test_a_block_that_two_steps_fill_is_remembered_when_it_is_full() -> None:
    cache = make_cache()
    sequence = sequence_of(numbers(9))
    blocks = np.array(cache.pool.allocate(3), dtype=np.int32)
    for start, end, known in [(0, 3, 0), (3, 5, 1), (5, 7, 1), (7, 9, 2)]:
        cache.cache_blocks(sequence, "", blocks, start=start, end=end)
        assert len(found(cache, numbers(9))) == known


def test_answers_are_remembered_too() -> None:
    cache = make_cache()
    sequence = sequence_of(numbers(3))
    blocks = np.array(cache.pool.allocate(2), dtype=np.int32)
    cache.cache_blocks(sequence, "", blocks, start=0, end=3)
    for token in (3, 4, 5):
        sequence.append(token, 0.0)
    cache.cache_blocks(sequence, "", blocks, start=3, end=5)
    assert found(cache, numbers(6)) == blocks[:1].tolist()


def test_what_is_found_of_prompts_is_counted() -> None:
    cache = make_cache()
    for cached in (8, 0):
        group = make_group(numbers(10))
        group.cached_tokens = cached
        cache.count(group)
    assert (cache.hit_tokens, cache.asked_tokens) == (8, 20)


def test_what_all_prompts_of_a_job_begin_with_is_forgotten_last() -> None:
    cache = make_cache(blocks=8)
    system = numbers(8)
    for tail in (100, 200):
        cache.add(make_group(system + [tail] * 8, job="job"))
    blocks = computed(cache, system + [100] * 8)
    computed(cache, numbers(20)[4:])  # used more recently, and of no job
    order = cache.pool.allocate(8)
    assert order[-2:] == [blocks[1], blocks[0]]


def test_a_jobs_prefix_shrinks_to_what_is_common() -> None:
    cache = make_cache(blocks=4)
    for prompt in (numbers(16), numbers(9), [*numbers(4), 7, 7, 7, 7]):
        cache.add(make_group(prompt, job="job"))
    blocks = computed(cache, numbers(16))
    assert cache.pool.allocate(4) == [*blocks[:0:-1], blocks[0]]
    cache.pool.release(np.array(blocks, dtype=np.int32))
    cache.add(make_group([5, 6, 7, 8], job="job"))
    cache.pool.check_integrity()


def test_a_prompt_that_begins_otherwise_does_not_let_go_of_the_others_prefix() -> None:
    cache = make_cache(blocks=4)
    for prompt in (numbers(9), numbers(10), [9, 9, 9, 9, 9]):
        cache.add(make_group(prompt, job="job"))
    blocks = computed(cache, numbers(8))
    other = computed(cache, [9, 9, 9, 9])
    assert cache.pool.allocate(4)[1:] == [*other, *blocks[::-1]]


def test_one_prompt_alone_is_not_kept() -> None:
    cache = make_cache(blocks=3)
    cache.add(make_group(numbers(4), job="job"))
    (lonely,) = computed(cache, numbers(4))
    (younger,) = computed(cache, [9, 9, 9, 9])
    assert cache.pool.allocate(3)[1:] == [lonely, younger]


def test_jobs_with_other_salts_have_nothing_in_common() -> None:
    cache = make_cache(blocks=4)
    cache.add(make_group(numbers(8), job="job", salt="one"))
    cache.add(make_group(numbers(8), job="job", salt="two"))
    first = computed(cache, numbers(8), salt="one")
    plain = cache.pool.allocate(1)
    cache.pool.release(np.array(plain, dtype=np.int32))
    assert cache.pool.allocate(4)[2:] == first[::-1], "used last, but not pinned"


@pytest.mark.parametrize("others", [JOBS - 1, JOBS])
def test_the_prefixes_of_jobs_long_gone_are_let_go(others: int) -> None:
    cache = make_cache(blocks=2)
    for _ in range(2):
        cache.add(make_group(numbers(4), job="old"))
    old = computed(cache, numbers(4))
    for job in range(others):
        cache.add(make_group([job, 0, 0, 0], job=str(job)))
    young = computed(cache, [9, 9, 9, 9])
    cache.pool.check_integrity()
    assert cache.pool.allocate(2) == (young + old if others < JOBS else old + young)

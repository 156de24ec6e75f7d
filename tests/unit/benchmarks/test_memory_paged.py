"""The scheduler and the block pool fed with lengths."""

from __future__ import annotations

import pytest

from benchmarks.memory_beams import Recorded, Search
from benchmarks.memory_paged import Decoding, Paged, Replay, beams, sampling
from benchmarks.memory_requests import Request

# 32 prompt tokens are two full blocks of 16; 33 answer tokens make the third and fourth full.
ALIKE = [Request(key=key, prompt=32, answer=33) for key in range(40)]


def replay(requests: list[Request], decoding: Decoding, *, blocks: int = 520) -> Paged:
    # one request at a time fits, whatever the lengths are that the scheduler expects
    return Replay(
        requests, decoding, blocks=blocks, block_size=16, max_num_seqs=decoding.params.width
    ).run()


def test_only_the_last_block_is_not_full() -> None:
    paged = replay(ALIKE, sampling(1))
    # measured every fourth step of 33, so that every length of 32 to 64 tokens has its turn
    full = [tokens / (16 * -(-tokens // 16)) for tokens in range(32, 65)]
    assert paged.use.of_reserved == pytest.approx(sum(full) / len(full), abs=0.01)
    assert paged.saving == 0.0
    assert (paged.steps, paged.use.running) == (40 * 33, 1)


def test_samples_share_whole_prompt_blocks_and_nothing_else() -> None:
    paged = replay(ALIKE, sampling(4))
    # of 4 tables with 2, 3 or 4 blocks each, 3 name the prompt's two once more
    saved = [6 / (4 * -(-tokens // 16)) for tokens in range(33, 65)]
    assert paged.saving == pytest.approx(sum(saved) / 33, abs=0.01)
    assert paged.copies == 0


def test_beams_that_never_part_from_one_share_all_but_the_last_block() -> None:
    search = Search(parents=[[0, 0]] * 127, ended=None)
    paged = replay(ALIKE, beams(2, [Recorded(line=1, prompt_tokens=9, searches={2: search})]))
    saved = [(-(-tokens // 16) - 1) / (2 * -(-tokens // 16)) for tokens in range(33, 65)]
    assert paged.saving == pytest.approx(sum(saved) / 33, abs=0.01)
    # both write into the block they share, wherever it is not a new one: 30 of 32 steps
    assert paged.copies == 30 * len(ALIKE)


def test_beams_that_keep_apart_share_the_prompt_only() -> None:
    search = Search(parents=[[0, 1]] * 127, ended=None)
    recorded = [Recorded(line=1, prompt_tokens=9, searches={2: search})]
    apart, samples = replay(ALIKE, beams(2, recorded)), replay(ALIKE, sampling(2))
    assert apart == samples

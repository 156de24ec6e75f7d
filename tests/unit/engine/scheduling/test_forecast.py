from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.forecast import STEPS, TRUNK, expected_peak
from batchgen.engine.scheduling.sequence import SequenceGroup


def make_group(
    *, prompt: int = 8, drawn: int = 1, max_tokens: int = 100, **params: Any
) -> SequenceGroup:
    """Return a group whose answers have `drawn` tokens and end at `max_tokens`."""
    sampling = SamplingParams(**{"ignore_eos": True, **params})
    group = SequenceGroup.of_prompt(1, [1] * prompt, sampling, max_tokens=max_tokens)
    if drawn:
        group.sequences = [group.sequences[0].fork(index) for index in range(group.width)]
    for sequence in group.sequences:
        sequence.tokens += [2] * drawn
    return group


def peak(
    *groups: SequenceGroup, used: int, block_size: int = 1, book: LengthBook | None = None
) -> int:
    pool = BlockPool(10_000, block_size)
    pool.allocate(used)
    return expected_peak(book or LengthBook(), pool, list(groups))


def tokens_at(group: SequenceGroup, steps: int) -> int:
    """Return the tokens that `group` holds so many steps on, if it ends at its limit only."""
    if group.num_generated + steps >= group.max_tokens:
        return 0
    return group.num_prompt + group.width * (group.num_generated + steps)


def test_the_peak_is_that_of_a_simulation_where_all_ends_are_known() -> None:
    rng = Random(5)  # noqa: S311
    for _ in range(200):
        groups = [
            make_group(
                prompt=rng.randint(1, 60),
                drawn=(drawn := rng.randint(1, 40)),
                max_tokens=drawn + rng.randint(1, 100),
                n=rng.choice([1, 1, 3]),
            )
            for _ in range(rng.randint(1, 8))
        ]
        held = [sum(tokens_at(group, t) for group in groups) for t in range(101)]
        found = peak(*groups, used=held[0])
        assert found == max(held)


def test_groups_that_end_make_place_for_those_that_go_on() -> None:
    short = make_group(prompt=92, drawn=8, max_tokens=18)
    long = make_group(prompt=92, drawn=8, max_tokens=58)
    assert peak(short, used=200) == 200 + 9
    assert peak(long, used=200) == 200 + 49
    # Both grow by 9; then 100 come back, and 40 more are less than that.
    assert peak(short, long, used=200) == 200 + 18


def test_blocks_are_tokens_over_their_size_rounded_up() -> None:
    group = make_group(drawn=1, max_tokens=1 + 33)
    whole = peak(group, used=50, block_size=1) - 50
    assert peak(group, used=50, block_size=4) - 50 == -(-whole // 4)


def test_it_is_never_less_than_what_is_in_use() -> None:
    assert peak(make_group(prompt=500, drawn=99, max_tokens=100), used=123) == 123


def test_answers_that_end_at_different_times_need_less_than_if_all_were_the_longest() -> None:
    book = LengthBook()
    for length in (10, 90):
        book.observe(make_group(drawn=length))
    groups = [make_group(drawn=1, max_tokens=100, ignore_eos=False) for _ in range(10)]
    learned = peak(*groups, used=90, book=book)
    surely = [make_group(drawn=1, max_tokens=90) for _ in range(10)]
    assert 90 + 10 * 8 <= learned < peak(*surely, used=90)


def test_what_others_hold_too_does_not_come_back() -> None:
    ending, cached = (make_group(prompt=100, drawn=5, max_tokens=10) for _ in range(2))
    cached.cached_tokens = 96
    going = make_group(prompt=100, drawn=5, max_tokens=100)
    assert peak(ending, going, used=300) < peak(cached, going, used=300)


def test_beams_share_all_but_their_last_tokens_however_long_they_are() -> None:
    grown = peak(make_group(drawn=TRUNK, max_tokens=TRUNK + 201, num_beams=4), used=500) - 500
    assert grown == pytest.approx(200, rel=0.25)
    young = peak(make_group(drawn=1, max_tokens=TRUNK // 2, num_beams=4), used=500) - 500
    assert young == pytest.approx(4 * TRUNK // 2, rel=0.2)


def test_a_long_future_costs_no_more_than_a_short_one() -> None:
    asked: list[int] = []

    class Book(LengthBook):
        def growing(self, groups: list[SequenceGroup], ahead: Any) -> Any:
            asked.append(len(ahead))
            return super().growing(groups, ahead)

    for max_tokens in (2, 100, 1_000_000):
        peak(make_group(max_tokens=max_tokens), used=1, book=Book())
    # So many points, and the one end that is known.
    assert asked[0] == 2 and max(asked) <= STEPS + 1
    assert np.diff(asked).min() >= 0

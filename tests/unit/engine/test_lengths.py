from __future__ import annotations

from random import Random

import pytest

from batchgen.engine.blocks import BlockPool
from batchgen.engine.lengths import JOBS, REMEMBERED, UNKNOWN, LengthBook, Lengths, expected_peak
from batchgen.engine.sequence import SequenceGroup
from batchgen.io.params import SamplingParams


def make_group(
    *, prompt: int = 8, drawn: int = 0, max_tokens: int = 1000, job: str = "", **params: object
) -> SequenceGroup:
    """Return a group whose answers have `drawn` tokens."""
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    group = SequenceGroup.of_prompt(1, [1] * prompt, sampling, max_tokens=max_tokens, job=job)
    if drawn:
        group.sequences = [group.sequences[0].fork(index) for index in range(group.width)]
    for sequence in group.sequences:
        sequence.tokens += [2] * drawn
    return group


def learned(*lengths: int, job: str = "") -> LengthBook:
    book = LengthBook()
    for length in lengths:
        book.observe(make_group(drawn=length, job=job))
    return book


def test_an_answer_is_expected_to_be_as_long_as_those_longer_than_it_is() -> None:
    lengths = Lengths()
    for length in (30, 10, 20):
        lengths.observe(length)
    assert [lengths.expect(generated) for generated in (0, 9, 10, 19, 20, 29)] == [
        *[pytest.approx(20)] * 2,
        *[pytest.approx(25)] * 2,
        *[pytest.approx(30)] * 2,
    ]


def test_an_answer_longer_than_any_has_no_end_in_sight() -> None:
    lengths = Lengths()
    lengths.observe(30)
    assert lengths.expect(30) == 60
    assert lengths.expect(100) == 200


def test_while_nothing_is_known_answers_are_expected_to_be_long() -> None:
    lengths = Lengths()
    assert lengths.expect(0) == UNKNOWN
    assert lengths.expect(UNKNOWN) == 2 * UNKNOWN


def test_only_recent_answers_count() -> None:
    rng = Random(3)  # noqa: S311
    lengths = Lengths()
    observed = [rng.randint(1, 400) for _ in range(3 * REMEMBERED)]
    for at, length in enumerate(observed):
        lengths.observe(length)
        if at % 100 == 0 or at == len(observed) - 1:
            recent = observed[max(0, at + 1 - REMEMBERED) : at + 1]
            longer = [other for other in recent if other > 50]
            assert lengths.expect(0) == pytest.approx(sum(recent) / len(recent))
            if longer:
                assert lengths.expect(50) == pytest.approx(sum(longer) / len(longer))


def test_jobs_have_lengths_of_their_own() -> None:
    book = learned(10, job="short")
    assert book.remaining(make_group(job="short")) == 10
    assert book.remaining(make_group(job="other")) == UNKNOWN


def test_the_lengths_of_jobs_long_gone_are_forgotten() -> None:
    book = learned(10, job="old")
    for job in range(JOBS - 1):
        book.observe(make_group(drawn=5, job=str(job)))
    assert book.remaining(make_group(job="old")) == 10, "looked at: it is young again"
    for job in range(JOBS):
        book.observe(make_group(drawn=5, job=str(job)))
    assert book.remaining(make_group(job="old")) == UNKNOWN


def test_what_remains_is_at_least_a_token_and_at_most_the_limit() -> None:
    book = learned(20, 40)
    assert book.remaining(make_group()) == 30
    assert book.remaining(make_group(drawn=25)) == 15
    assert book.remaining(make_group(drawn=25, max_tokens=30)) == 5
    assert book.remaining(make_group(drawn=39)) == 1
    assert book.remaining(make_group(max_tokens=100, ignore_eos=True)) == 100


def test_every_sample_of_a_group_is_learned_from() -> None:
    book = LengthBook()
    group = make_group(drawn=10, n=2)
    group.sequences[1].tokens += [2] * 20
    book.observe(group)
    assert book.remaining(make_group()) == 20


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_the_expected_peak_is_that_of_a_simulation(block_size: int) -> None:
    rng = Random(block_size)  # noqa: S311
    for _ in range(100):
        groups = [
            make_group(
                prompt=rng.randint(1, 60),
                drawn=(drawn := rng.randint(1, 40)),
                max_tokens=drawn + rng.randint(1, 100),
                ignore_eos=True,
                n=rng.choice([1, 1, 3]),
            )
            for _ in range(rng.randint(1, 8))
        ]
        pool = BlockPool(10_000, block_size)
        pool.allocate(sum(blocks_at(group, 0, block_size) for group in groups))
        ends = [group.max_tokens - drawn_by(group) for group in groups]
        simulated = max(
            sum(
                blocks_at(g, t, block_size) for g, end in zip(groups, ends, strict=True) if t <= end
            )
            for t in range(max(ends) + 1)
        )
        # Last blocks are taken for half empty, those that grow and those that were given back.
        error = 2 * sum(group.slots for group in groups)
        assert abs(expected_peak(LengthBook(), pool, groups) - simulated) <= error


def drawn_by(group: SequenceGroup) -> int:
    return group.sequences[0].num_generated


def blocks_at(group: SequenceGroup, steps: int, block_size: int) -> int:
    """Return the blocks of `group` so many steps on, nothing shared but the whole prompt blocks."""
    shared = group.num_prompt // block_size
    tokens = group.num_prompt + drawn_by(group) + steps
    return shared + group.slots * (-(-tokens // block_size) - shared)


def test_groups_that_end_make_place_for_those_that_go_on() -> None:
    pool = BlockPool(1000, 1)
    pool.allocate(200)
    short = make_group(prompt=92, drawn=8, max_tokens=18, ignore_eos=True)
    long = make_group(prompt=92, drawn=8, max_tokens=58, ignore_eos=True)
    assert expected_peak(LengthBook(), pool, [short]) == 200 + 10 + 1
    assert expected_peak(LengthBook(), pool, [long]) == 200 + 50 + 1
    # Both grow by 10; then 100 come back, and 40 more are less than that.
    assert expected_peak(LengthBook(), pool, [short, long]) == 200 + 20 + 1

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.answer_lengths import JOBS, REMEMBERED, UNKNOWN, LengthBook, Lengths
from batchgen.engine.scheduling.sequence import SequenceGroup


def make_group(
    *, drawn: int = 0, max_tokens: int = 10_000, job: str = "", **params: Any
) -> SequenceGroup:
    """Return a group whose answers have `drawn` tokens."""
    group = SequenceGroup.of_prompt(
        1, [1] * 8, SamplingParams(**params), max_tokens=max_tokens, job=job
    )
    if drawn:
        group.sequences = [group.sequences[0].fork(index) for index in range(group.width)]
    for sequence in group.sequences:
        sequence.tokens += [2] * drawn
    return group


def observed(*answers: int) -> Lengths:
    lengths = Lengths()
    for length in answers:
        lengths.observe(length)
    return lengths


def growing(lengths: Lengths, generated: int, ahead: int) -> float:
    return float(lengths.growing(np.array([generated]), np.array([ahead]))[0, 0])


def still_growing(book: LengthBook, ahead: int, **group: Any) -> float:
    return float(book.growing([make_group(**group)], np.array([ahead]))[0, 0])


@pytest.mark.parametrize(
    ("generated", "ahead", "likely"),
    [
        (0, 5, 4 / 4),
        (0, 10, 3 / 4),
        (0, 29, 1 / 4),
        (0, 30, 0),
        (10, 5, 3 / 3),
        (10, 10, 1 / 3),
        (20, 9, 1),
        (20, 10, 0),
    ],
)
def test_an_answer_goes_on_as_those_did_that_came_as_far(
    generated: int, ahead: int, likely: float
) -> None:
    assert growing(observed(30, 10, 20, 20), generated, ahead) == pytest.approx(likely)


def test_an_answer_longer_than_any_has_no_end_in_sight() -> None:
    lengths = observed(30)
    for generated in (30, 100):
        assert growing(lengths, generated, 1) > 0.9
        assert 0.3 < growing(lengths, generated, generated) < 0.5
        assert growing(lengths, generated, 10 * generated) < 0.01


def test_while_nothing_is_known_answers_are_taken_for_long() -> None:
    assert growing(Lengths(), 0, UNKNOWN // 2) > 0.5
    assert growing(Lengths(), 0, 10 * UNKNOWN) < 0.01


def test_only_recent_answers_count() -> None:
    rng = Random(3)  # noqa: S311
    lengths, answers = Lengths(), [rng.randint(1, 400) for _ in range(3 * REMEMBERED)]
    for at, length in enumerate(answers):
        lengths.observe(length)
        if at % 100 == 0 or at == len(answers) - 1:
            recent = answers[max(0, at + 1 - REMEMBERED) : at + 1]
            share = sum(answer > 150 for answer in recent) / len(recent)
            assert growing(lengths, 0, 150) == pytest.approx(share)


def test_many_are_asked_for_at_once() -> None:
    lengths = observed(5, 10, 15)
    generated, ahead = np.array([0, 7, 20]), np.array([1, 4, 9, 30])
    expected = [[growing(lengths, g, t) for t in ahead] for g in generated]
    assert lengths.growing(generated, ahead).tolist() == expected


def test_jobs_have_lengths_of_their_own() -> None:
    book = LengthBook()
    book.observe(make_group(drawn=10, job="short"))
    groups = [make_group(job=job) for job in ("short", "other", "short")]
    likely = book.growing(groups, np.array([10]))[:, 0].tolist()
    assert likely == [0, pytest.approx(np.exp(-10 / UNKNOWN)), 0]


def test_the_lengths_of_jobs_long_gone_are_forgotten() -> None:
    book = LengthBook()
    book.observe(make_group(drawn=10, job="old"))
    for job in range(JOBS - 1):
        book.observe(make_group(drawn=5, job=str(job)))
    assert still_growing(book, 10, job="old") == 0, "and it is young again"
    for job in range(JOBS):
        book.observe(make_group(drawn=5, job=str(job)))
    assert still_growing(book, 10, job="old") > 0.9


def test_the_limit_ends_every_answer_and_nothing_else_some() -> None:
    book = LengthBook()
    book.observe(make_group(drawn=20))
    assert still_growing(book, 19, max_tokens=50) == 1
    assert still_growing(book, 20, max_tokens=50) == 0
    assert still_growing(book, 15, drawn=4, max_tokens=20) == 1
    assert still_growing(book, 15, drawn=4, max_tokens=19) == 0
    assert still_growing(book, 49, max_tokens=50, ignore_eos=True) == 1
    assert still_growing(book, 50, max_tokens=50, ignore_eos=True) == 0


def test_a_failed_row_teaches_nothing() -> None:
    book = LengthBook()
    group = make_group(drawn=10)
    group.failed = True
    book.observe(group)
    assert still_growing(book, 10) > 0.9


def test_an_answer_that_went_to_its_limit_whatever_it_said_teaches_nothing() -> None:
    book = LengthBook()
    book.observe(make_group(drawn=10, max_tokens=10, ignore_eos=True))
    assert still_growing(book, 10) > 0.9


def test_every_sample_of_a_group_is_learned_from() -> None:
    book = LengthBook()
    group = make_group(drawn=10, n=2)
    group.sequences[1].tokens += [2] * 20
    book.observe(group)
    assert still_growing(book, 9) == 1
    assert still_growing(book, 10) == pytest.approx(1 / 2)
    assert still_growing(book, 30) == 0

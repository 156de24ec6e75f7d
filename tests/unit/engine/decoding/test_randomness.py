from __future__ import annotations

import numpy as np

from batchgen.engine.decoding.randomness import Words, as_word, uniforms


def words(*values: int) -> Words:
    return np.array(values, dtype=np.uint64)


def test_a_number_depends_on_its_own_counter_only() -> None:
    many = uniforms(words(1, 2, 3), words(0, 1, 0), words(7, 8, 9))
    for i, (seed, sequence, position) in enumerate([(1, 0, 7), (2, 1, 8), (3, 0, 9)]):
        assert uniforms(words(seed), words(sequence), words(position))[0] == many[i]


def test_each_part_of_the_counter_matters() -> None:
    base = uniforms(words(1), words(2), words(3))[0]
    for other in [(2, 2, 3), (1, 1, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1)]:
        assert uniforms(*(words(part) for part in other))[0] != base


def test_numbers_are_fixed_for_ever() -> None:
    # Answers already delivered must be reproducible by later versions.
    got = uniforms(words(0, 1, 2**64 - 1), words(0, 0, 3), words(0, 100, 2**31))
    assert got.tolist() == [0.13870941014555171, 0.9589455132495388, 0.4050330420119401]


def test_numbers_are_uniform_along_every_axis() -> None:
    count = 50_000
    ramp, zero = np.arange(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
    for axes in [(ramp, zero, zero), (zero, ramp, zero), (zero, zero, ramp)]:
        numbers = uniforms(*axes)
        assert numbers.min() >= 0.0 and numbers.max() < 1.0
        counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
        chi_square = ((counts - count / 50) ** 2 / (count / 50)).sum()
        assert chi_square < 49 + 5 * (2 * 49) ** 0.5
        neighbours = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
        assert abs(neighbours) < 0.02


def test_a_seed_of_any_sign_is_a_word() -> None:
    assert as_word(-1) == 2**64 - 1
    assert as_word(5) == 5
    assert as_word(-(2**63)) == 2**63

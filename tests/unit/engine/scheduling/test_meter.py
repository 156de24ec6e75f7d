from __future__ import annotations

from random import Random

import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.meter import EVERY, PoolMeter, Reading, measure
from tests.support.scheduling import Life, World


def make_life() -> Life:
    return Life(World(block_size=4), Random(0))  # noqa: S311


def add(life: Life, prompt: int, *, n: int = 1) -> None:
    params = SamplingParams(n=n, ignore_eos=True)
    life.add(life.group([1] * prompt, params, max_tokens=30))


def test_an_idle_pool_is_neither_used_nor_shared() -> None:
    assert measure(make_life().scheduler) == (0.0, 0.0)


def test_what_runs_is_measured() -> None:
    life = make_life()
    add(life, prompt=6)
    life.step()
    assert measure(life.scheduler) == pytest.approx((6 / 8, 0.0))
    add(life, prompt=8, n=3)
    life.step()
    utilisation, saving = measure(life.scheduler)
    assert utilisation == pytest.approx((7 + 8) / 16)
    assert saving == pytest.approx(1 - 4 / 8)


def test_a_mean_is_over_the_samples_since_it_began() -> None:
    life = make_life()
    meter = PoolMeter(life.scheduler)
    add(life, prompt=4)
    life.step()
    meter.tick()  # 4 of 4 slots
    began = meter.reading
    for _ in range(2 * EVERY):
        life.step()
        meter.tick()
    # 4 + 8 tokens in 3 blocks, then 4 + 16 in 5: full both times
    assert meter.since(began) == pytest.approx((1.0, 0.0))
    assert meter.reading.samples == 3
    life.step()
    add(life, prompt=1)
    life.step()
    for _ in range(EVERY):
        meter.tick()
    # 4 + 18 tokens in 6 blocks and 1 in a block of its own
    assert meter.last == pytest.approx((23 / 28, 0.0))
    assert meter.since(began)[0] == pytest.approx((1 + 1 + 23 / 28) / 3)
    assert meter.since(Reading())[0] == pytest.approx((3 + 23 / 28) / 4)


def test_a_row_between_two_samples_has_the_last_one() -> None:
    life = make_life()
    meter = PoolMeter(life.scheduler)
    assert meter.since(meter.reading) == (0.0, 0.0)
    add(life, prompt=6)
    life.step()
    meter.tick()
    assert meter.since(meter.reading) == pytest.approx((6 / 8, 0.0))

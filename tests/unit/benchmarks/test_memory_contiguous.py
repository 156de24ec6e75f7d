"""Memory in contiguous pieces."""

from __future__ import annotations

import random

import pytest

from benchmarks.memory_contiguous import Buddies, power_of_two, replay
from benchmarks.memory_requests import CONTEXT, Request


def test_pieces_are_apart_and_come_together_again() -> None:
    rng = random.Random(0)  # noqa: S311 - sizes, not secrets
    memory, held = Buddies(1000), list[tuple[int, int]]()
    for _ in range(500):
        if held and rng.random() < 0.45:
            memory.free(*held.pop(rng.randrange(len(held))))
        elif (piece := memory.allocate(rng.randint(1, 200))) is not None:
            held.append(piece)
        slots = [slot for start, size in held for slot in range(start, start + size)]
        assert len(set(slots)) == len(slots)
        assert not slots or max(slots) < 1000
    for piece in held:
        memory.free(*piece)
    assert [memory.allocate(size) for size in (512, 256, 128, 64, 32, 8)] == [
        *((0, 512), (512, 256), (768, 128), (896, 64), (960, 32), (992, 8))
    ]
    assert memory.allocate(1) is None


def test_powers_of_two() -> None:
    assert [power_of_two(number) for number in (1, 2, 3, 4, 5, 1024, 1025)] == [
        *(1, 2, 4, 4, 8, 1024, 2048)
    ]


@pytest.mark.parametrize(
    ("policy", "reserved"), [("maximum", CONTEXT), ("power of two", 40 + 32), ("oracle", 40 + 24)]
)
def test_requests_that_are_all_alike_fill_what_is_reserved_step_by_step(
    policy: str, reserved: int
) -> None:
    requests = [Request(key=key, prompt=40, answer=24) for key in range(80)]
    use = replay(requests, policy, slots=4 * CONTEXT, max_num_seqs=4)
    filled = 40 + 23 / 2  # from 40 tokens to 63
    assert use.running == 4
    assert use.of_reserved == pytest.approx(filled / reserved)
    assert use.of_all == pytest.approx(4 * filled / (4 * CONTEXT))

"""The contract of the kernels, the same for each implementation, against an oracle in loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.registry import SUPPORTED, create_kernels
from tests.support.paged import BLOCK_SIZE, NUM_BLOCKS, Simulation, oracle

PLAIN = LayerShape(query_heads=6, kv_heads=2, key_width=8, value_width=8, scale=8**-0.5)
SHAPES = {
    "plain": PLAIN,
    "one head": replace(PLAIN, query_heads=1, kv_heads=1),
    "no groups": replace(PLAIN, query_heads=2),
    "unequal widths": replace(PLAIN, key_width=12, value_width=8),
    "window": replace(PLAIN, window=5),
    "window of one": replace(PLAIN, window=1),
    "softcap": replace(PLAIN, softcap=2.0, scale=1.0),
    "sinks": replace(PLAIN, sinks=torch.linspace(-1, 2, 6)),
    "everything": replace(PLAIN, window=7, softcap=3.0, sinks=torch.linspace(-2, 1, 6)),
}


@pytest.fixture(params=SUPPORTED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[name for name in SUPPORTED if name != "triton"])
def quick(request: pytest.FixtureRequest) -> str:
    """An implementation that computes thousands of tiles in no time."""
    return str(request.param)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield int(request.param)
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_chunks_decodes_and_prefills_in_one_step(name: str, shape: LayerShape) -> None:
    simulation = Simulation(name, [shape])
    a, b, c = (simulation.add() for _ in range(3))
    assert simulation.step((a, 9)) < 1e-5
    assert simulation.step((a, 5), (b, 3)) < 1e-5
    assert simulation.step((a, 1), (b, 1), (c, 14)) < 1e-5
    for _ in range(6):
        assert simulation.step((a, 1), (b, 1), (c, 1)) < 1e-5


def test_layers_of_different_shapes_share_a_block(name: str) -> None:
    simulation = Simulation(name, [PLAIN, SHAPES["unequal widths"], SHAPES["window"], PLAIN])
    a, b = simulation.add(), simulation.add()
    assert simulation.step((a, 7), (b, 2)) < 1e-5
    assert simulation.step((a, 1), (b, 4)) < 1e-5
    assert simulation.step((a, 1), (b, 1)) < 1e-5


def test_many_decodes_of_very_different_lengths(quick: str) -> None:
    simulation = Simulation(quick, [PLAIN])
    rows = [simulation.add() for _ in range(40)]
    lengths = [1 + (7 * i) % 5 + (16 if i % 13 == 0 else 0) for i in rows]
    assert simulation.step(*zip(rows, lengths, strict=True)) < 1e-5
    assert simulation.step(*((row, 1) for row in rows)) < 1e-5


def test_a_prompt_longer_than_one_tile(quick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchgen_kernels.tiles.SCORES", 100)
    simulation = Simulation(quick, [PLAIN, SHAPES["window"]])
    a = simulation.add()
    assert simulation.step((a, 50)) < 1e-5
    assert simulation.step((a, 33)) < 1e-5


def test_the_order_of_sequences_in_a_step_is_free(name: str) -> None:
    simulation = Simulation(name, [PLAIN])
    a, b, c = (simulation.add() for _ in range(3))
    assert simulation.step((c, 2), (a, 6), (b, 1)) < 1e-5
    assert simulation.step((b, 1), (c, 3), (a, 1)) < 1e-5


@pytest.mark.parametrize("width", [64, 80, 96, 128, 256, 7, 20])
def test_head_widths(quick: str, width: int) -> None:
    shape = replace(PLAIN, key_width=width, value_width=width, scale=width**-0.5)
    simulation = Simulation(quick, [shape, replace(shape, value_width=24)])
    a, b = simulation.add(), simulation.add()
    assert simulation.step((a, 19), (b, 3)) < 1e-5
    assert simulation.step((a, 1), (b, 2)) < 1e-5


@pytest.mark.parametrize("group", range(1, 17))
def test_group_sizes(quick: str, group: int) -> None:
    simulation = Simulation(quick, [replace(PLAIN, query_heads=2 * group)])
    a, b = simulation.add(), simulation.add()
    assert simulation.step((a, 13), (b, 1)) < 1e-5
    assert simulation.step((a, 1), (b, 7)) < 1e-5


@pytest.mark.parametrize("block_size", [1, 4, 16, 24, 32, 64])
def test_block_sizes(quick: str, block_size: int) -> None:
    layers = [PLAIN, replace(PLAIN, window=37), SHAPES["everything"]]
    blocks = 2 + 300 // block_size + 3
    simulation = Simulation(quick, layers, block_size=block_size, blocks=blocks)
    a, b = simulation.add(), simulation.add()
    assert simulation.step((a, 130)) < 1e-5
    assert simulation.step((a, 14), (b, 66)) < 1e-5
    assert simulation.step((b, 1), (a, 1)) < 1e-5


@pytest.mark.parametrize("shape", [PLAIN, replace(PLAIN, query_heads=2), SHAPES["everything"]])
def test_few_long_sequences(quick: str, threads: int, shape: LayerShape) -> None:
    shape = replace(shape, window=None if shape.window is None else 700)
    simulation = Simulation(quick, [shape], block_size=16)
    a, b, c = (simulation.add() for _ in range(3))
    for s, length in ((a, 1300), (b, 600), (c, 62)):
        simulation.step((s, length), check=False)
    assert simulation.step((a, 2), (b, 1), (c, 1)) < 1e-5
    assert simulation.step((a, 1)) < 1e-5
    assert simulation.step((a, 1), (b, 1), (c, 1)) < 1e-5


@pytest.mark.parametrize("shape", [PLAIN, SHAPES["everything"], replace(PLAIN, query_heads=32)])
def test_sequences_that_share_blocks(quick: str, threads: int, shape: LayerShape) -> None:
    """A prompt for all, continued by two of them, each with samples that part at the end."""
    simulation = Simulation(quick, [shape], block_size=16)
    system, other = simulation.add(), simulation.add()
    simulation.step((system, 75), (other, 70))
    rows = [system, simulation.fork(system), simulation.fork(system), other]
    assert simulation.step((rows[0], 60), (rows[1], 130), (rows[2], 1), (other, 1)) < 1e-5
    rows += [simulation.fork(row) for row in (rows[0], rows[0], rows[1], rows[1], rows[1])]
    for _ in range(3):
        assert simulation.step(*((row, 1) for row in rows)) < 1e-5
    assert simulation.step((rows[4], 5), *((row, 1) for row in reversed(rows[5:]))) < 1e-5


def test_blocks_before_the_window_may_be_gone(name: str) -> None:
    simulation = Simulation(name, [replace(PLAIN, window=10), replace(PLAIN, window=9)])
    a = simulation.add()
    simulation.step((a, 90))
    for block in simulation.tables[a][:20]:
        simulation.pool[block] = math.nan
    simulation.tables[a][:20] = [0] * 20  # the tokens 0 to 79; the next query sees 81 and on
    assert simulation.step((a, 1)) < 1e-5
    assert simulation.step((a, 3)) < 1e-5


def test_a_sequence_gone_wrong_harms_no_other(name: str) -> None:
    simulation = Simulation(name, [PLAIN])
    a, b = simulation.add(), simulation.add()
    simulation.step((a, 6), (b, 6))
    simulation.pool[simulation.tables[b]] = math.inf
    simulation.keys[b][0].fill_(math.inf)
    simulation.values[b][0].fill_(math.inf)
    out = simulation.outputs(0, ((a, 1), (b, 1)))
    assert out[0].isfinite().all()
    assert out[1].isnan().all()


def test_scores_far_apart(name: str) -> None:
    simulation = Simulation(name, [replace(PLAIN, scale=30.0), replace(PLAIN, scale=1e-6)])
    a = simulation.add()
    assert simulation.step((a, 20)) < 1e-4
    assert simulation.step((a, 1)) < 1e-4


@pytest.mark.parametrize("shape", [PLAIN, SHAPES["everything"]])
def test_a_row_has_the_same_bits_in_every_batch(threads: int, shape: LayerShape) -> None:
    def last(*beside: int) -> Tensor:
        simulation = Simulation("cpu", [shape], block_size=16)
        a = simulation.add()
        simulation.step((a, 1000), check=False)
        generator, simulation.generator = simulation.generator, torch.Generator()
        others = [simulation.add() for _ in beside]
        for row, count in zip(others, beside, strict=True):
            simulation.step((row, count), check=False)
        simulation.generator = generator
        return simulation.outputs(0, ((a, 1), *((row, 1) for row in others)))[0]

    alone = last()
    assert torch.equal(last(5, 70, 300), alone)
    torch.set_num_threads(1)
    assert torch.equal(last(900), alone)


def test_tensors_may_lie_in_any_order(name: str) -> None:
    simulation = Simulation(name, [PLAIN])
    a = simulation.add()
    simulation.step((a, 5))
    shares = ((a, 3),)
    query, key = simulation.random(6, 3, 8), simulation.random(8, 2, 3)
    simulation.plan(shares)
    simulation.write(0, key.permute(2, 1, 0), key.permute(2, 1, 0) + 1)
    out = simulation.attend(0, query.transpose(0, 1))
    new = key.permute(2, 1, 0)
    keys, values = torch.cat([simulation.keys[a][0], new]), simulation.values[a][0]
    expected = oracle(PLAIN, query.transpose(0, 1), keys, torch.cat([values, new + 1]))
    assert float((out - expected).abs().max()) < 1e-5


def test_copy_moves_every_layer_of_a_block(name: str) -> None:
    simulation = Simulation(name, [PLAIN, SHAPES["unequal widths"]])
    simulation.pool.copy_(simulation.random(*simulation.pool.shape))
    before = simulation.pool.clone()
    simulation.kernels.copy([(3, 9), (3, 10), (5, 11)])
    for source, destination in [(3, 9), (3, 10), (5, 11)]:
        assert torch.equal(simulation.pool[destination], before[source])
    untouched = [i for i in range(NUM_BLOCKS) if i not in (9, 10, 11)]
    assert torch.equal(simulation.pool[untouched], before[untouched])
    simulation.kernels.copy([])


def test_a_copied_block_continues_the_sequence(name: str) -> None:
    simulation = Simulation(name, [PLAIN])
    a, b = simulation.add(), simulation.add()
    simulation.step((a, 6))
    simulation.keys[b], simulation.values[b] = list(simulation.keys[a]), list(simulation.values[a])
    fresh = simulation.free.pop()
    simulation.tables[b] = [simulation.tables[a][0], fresh]
    simulation.kernels.copy([(simulation.tables[a][1], fresh)])
    assert simulation.step((a, 1), (b, 1)) < 1e-5
    assert simulation.step((a, 1), (b, 1)) < 1e-5


def test_bfloat16_pools_are_read_and_written(name: str) -> None:
    layout = PoolLayout(layers=(PLAIN,), block_size=BLOCK_SIZE)
    pool = torch.full((8, layout.elements), math.nan, dtype=torch.bfloat16)
    kernels = create_kernels(name, pool, layout)
    one = np.ones(1, dtype=np.int32)
    kernels.plan(StepBatch(tables=one[:, None], starts=0 * one, counts=3 * one))
    q, k = torch.randn(3, 6, 8).bfloat16(), torch.randn(3, 2, 8).bfloat16()
    kernels.write(0, k, k)
    out = kernels.attend(0, q)
    assert out.dtype == torch.bfloat16
    assert float((out - oracle(PLAIN, q.float(), k.float(), k.float())).abs().max()) < 0.05


def test_an_unknown_implementation_names_the_known_ones() -> None:
    layout = PoolLayout(layers=(PLAIN,), block_size=BLOCK_SIZE)
    with pytest.raises(ValueError, match="reference"):
        create_kernels("cuda", torch.empty(2, layout.elements), layout)

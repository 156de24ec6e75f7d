from __future__ import annotations

import pytest
import torch

from batchgen.engine.network.kvcache import KVCache, count_blocks, count_host_blocks
from batchgen.errors import InvalidParameter
from batchgen_kernels.interface import LayerShape
from batchgen_kernels.layout import PoolLayout

SHAPE = LayerShape(query_heads=4, kv_heads=2, key_width=8, value_width=8, scale=1.0)
LAYOUT = PoolLayout(layers=(SHAPE, SHAPE), block_size=4)
BLOCK_BYTES = 2 * 2 * 2 * 8 * 4 * 4


def test_memory_bounds_the_pool() -> None:
    assert count_blocks(LAYOUT, torch.float32, memory=10 * BLOCK_BYTES + 7, useful=99) == 10
    assert count_blocks(LAYOUT, torch.bfloat16, memory=10 * BLOCK_BYTES, useful=99) == 20


def test_a_pool_is_no_larger_than_what_could_be_used() -> None:
    assert count_blocks(LAYOUT, torch.float32, memory=10**12, useful=99) == 100


def test_memory_for_less_than_two_blocks_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="--kv-memory"):
        count_blocks(LAYOUT, torch.float32, memory=2 * BLOCK_BYTES - 1, useful=99)


def test_a_host_pool_is_no_larger_than_the_devices() -> None:
    for blocks, expected in [(5, 5), (7, 7), (8, 7), (10**6, 7)]:
        memory = blocks * BLOCK_BYTES
        assert count_host_blocks(LAYOUT, torch.float32, memory=memory, device=7) == expected


@pytest.mark.parametrize("memory", [0, BLOCK_BYTES, 2 * BLOCK_BYTES - 1])
def test_a_host_pool_of_a_null_block_only_is_none(memory: int) -> None:
    assert count_host_blocks(LAYOUT, torch.float32, memory=memory, device=7) == 0


def make_cache(*, dtype: torch.dtype, host_blocks: int = 4) -> KVCache:
    device = torch.device("cpu")
    return KVCache(LAYOUT, num_blocks=6, host_blocks=host_blocks, dtype=dtype, device=device)


def test_the_pools_have_the_layouts_shape() -> None:
    cache = make_cache(dtype=torch.bfloat16)
    assert cache.pool.shape == (6, LAYOUT.elements)
    assert cache.host.shape == (4, LAYOUT.elements)
    assert cache.pool.dtype == cache.host.dtype == torch.bfloat16
    assert cache.num_blocks == 6


def test_blocks_come_back_as_they_left_wherever_they_come_back_to() -> None:
    cache = make_cache(dtype=torch.float32)
    cache.pool[:] = torch.arange(6.0)[:, None]
    cache.pool[3, 0] = torch.nan
    before = cache.pool.clone()
    cache.swap_out([(2, 3), (3, 1), (5, 2)])
    assert cache.host[1:, 1].tolist() == [3.0, 5.0, 2.0]
    cache.pool[1:] = -1.0
    cache.swap_in([(1, 4), (3, 1), (2, 5)])
    for home, block in [(0, 0), (3, 4), (2, 1), (5, 5)]:
        assert torch.equal(cache.pool[block].nan_to_num(), before[home].nan_to_num())
    assert (cache.pool[[2, 3]] == -1.0).all()


def test_nothing_moves_where_nothing_is_owed() -> None:
    cache = make_cache(dtype=torch.float32, host_blocks=0)
    cache.swap_out([])
    cache.swap_in([])
    assert len(cache.host) == 0

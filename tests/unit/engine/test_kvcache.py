from __future__ import annotations

import pytest
import torch

from batchgen.engine.kvcache import KVCache, count_blocks
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


def test_the_pool_has_the_layouts_shape() -> None:
    cache = KVCache(LAYOUT, num_blocks=6, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert cache.pool.shape == (6, LAYOUT.elements)
    assert cache.pool.dtype == torch.bfloat16
    assert cache.num_blocks == 6

from __future__ import annotations

import torch

from batchgen_kernels.interface import LayerShape
from batchgen_kernels.layout import PoolLayout


def shape(key_width: int, value_width: int, kv_heads: int = 2) -> LayerShape:
    return LayerShape(
        query_heads=4, kv_heads=kv_heads, key_width=key_width, value_width=value_width, scale=1.0
    )


def test_every_element_of_a_block_belongs_to_one_view() -> None:
    layout = PoolLayout(layers=(shape(8, 8), shape(12, 4), shape(6, 6, 1)), block_size=4)
    assert layout.elements == 4 * (2 * 16 + 2 * 16 + 12)
    pool = torch.zeros(3, layout.elements)
    for keys, values in layout.views(pool):
        keys += 1
        values += 1
    assert torch.equal(pool, torch.ones_like(pool))


def test_views_keep_a_block_together() -> None:
    layout = PoolLayout(layers=(shape(8, 6), shape(8, 6)), block_size=4)
    pool = torch.zeros(5, layout.elements)
    keys, values = layout.views(pool)[1]
    assert keys.shape == (5, 2, 4, 8) and values.shape == (5, 2, 4, 6)
    keys[3], values[3] = 1, 2
    assert pool[3].count_nonzero() == 2 * 4 * 14
    assert pool.count_nonzero() == 2 * 4 * 14


def test_the_unit_divides_every_run() -> None:
    layout = PoolLayout(layers=(shape(12, 8), shape(20, 8, 1)), block_size=4)
    for (keys, values), layer in zip(layout.offsets, layout.layers, strict=True):
        assert keys % layout.unit == values % layout.unit == 0
        assert layer.key_width * 4 % layout.unit == layer.value_width * 4 % layout.unit == 0
    assert layout.elements % layout.unit == 0

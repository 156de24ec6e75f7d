"""The layout of keys and values in the pool: the block is outermost, all layers are inside it.

    pool [num_blocks, E]
    block   │ layer 0: keys [Hkv, B, Dk] values [Hkv, B, Dv] │ layer 1: keys … │ … │

So a block is contiguous in memory, and one move copies or swaps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import gcd
from typing import TYPE_CHECKING

from batchgen_kernels.interface import LayerShape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolLayout:
    """The shape of a pool for the layers of one model."""

    layers: tuple[LayerShape, ...]
    block_size: int

    @property
    def sizes(self) -> list[int]:
        """The elements of one block's keys and values, by layer: [keys, values, keys, …]."""
        return [
            shape.kv_heads * self.block_size * width
            for shape in self.layers
            for width in (shape.key_width, shape.value_width)
        ]

    @property
    def elements(self) -> int:
        """The number of elements of one block, E."""
        return sum(self.sizes)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The offsets (keys, values) of each layer in a block, in elements."""
        starts = [0, *accumulate(self.sizes)]
        return list(zip(starts[0:-1:2], starts[1:-1:2], strict=True))

    @property
    def unit(self) -> int:
        """The greatest number of elements that divides every head's run [B, D] and its offset."""
        return gcd(
            *(
                self.block_size * width
                for shape in self.layers
                for width in (shape.key_width, shape.value_width)
            )
        )

    def views(self, pool: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys [num_blocks, Hkv, B, Dk] and values [num_blocks, Hkv, B, Dv]."""
        return [
            (
                self._view(pool, keys, shape.kv_heads, shape.key_width),
                self._view(pool, values, shape.kv_heads, shape.value_width),
            )
            for shape, (keys, values) in zip(self.layers, self.offsets, strict=True)
        ]

    def _view(self, pool: Tensor, start: int, heads: int, width: int) -> Tensor:
        end = start + heads * self.block_size * width
        return pool[:, start:end].view(len(pool), heads, self.block_size, width)

"""The memory of keys and values: one tensor on the device, sized once."""

from __future__ import annotations

import torch

from batchgen.errors import InvalidParameter
from batchgen_kernels.layout import PoolLayout


class KVCache:
    """The pool `[num_blocks, E]`; `layout.views(pool)` are its layers.

    Not initialised: an unwritten slot may hold anything, NaN included, and memory that no block
    uses is never touched.
    """

    def __init__(
        self, layout: PoolLayout, *, num_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layout = layout
        self.pool = torch.empty(num_blocks, layout.elements, dtype=dtype, device=device)

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool, the null block included."""
        return len(self.pool)


def count_blocks(layout: PoolLayout, dtype: torch.dtype, *, memory: int, useful: int) -> int:
    """Return how many blocks a pool of `memory` bytes has, the null block included.

    Never more than the `useful` ones that could be in use at once; InvalidParameter where the
    memory does not hold two.
    """
    block_bytes = layout.elements * dtype.itemsize
    affordable = memory // block_bytes
    if affordable < 2:
        raise InvalidParameter(
            f"{memory:,} bytes hold no KV pool: one block of this model takes {block_bytes:,}. "
            "Raise --kv-memory."
        )
    return min(affordable, useful + 1)

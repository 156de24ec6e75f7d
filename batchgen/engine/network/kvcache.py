"""The memory of keys and values: one tensor on the device, allocated once."""

from __future__ import annotations

import torch

from batchgen.errors import InvalidParameter
from batchgen_kernels.cpu.memory import prefer_huge_pages
from batchgen_kernels.layout import PoolLayout


class KVCache:
    """The pool `[num_blocks, E]` and, for groups that are swapped out, a smaller one on the host.

    `layout.views(pool)` are the layers. The pool is not initialised: an unwritten slot may hold
    any value, even NaN, and memory that no block uses is never touched.

    On CUDA the host does not wait for swaps. Swaps, copies and kernels run in the order of one
    stream, and only swaps read or write the host pool. So if a block of either pool is allocated
    again, it is overwritten only after all pending reads of it.
    """

    def __init__(
        self,
        layout: PoolLayout,
        *,
        num_blocks: int,
        host_blocks: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate the memory; `host_blocks` is 0 if swapping is off."""
        self.layout = layout
        self.pool = torch.empty(num_blocks, layout.elements, dtype=dtype, device=device)
        prefer_huge_pages(self.pool)
        pinned = device.type == "cuda"
        self.host = torch.empty(host_blocks, layout.elements, dtype=dtype, pin_memory=pinned)

    @property
    def num_blocks(self) -> int:
        """The number of blocks of the device pool, including the null block."""
        return len(self.pool)

    def swap_out(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (device, host), all layers."""
        # One by one: each block is contiguous, and gathering them would need as much memory again.
        for here, there in pairs:
            self.host[there].copy_(self.pool[here], non_blocking=True)

    def swap_in(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (host, device), all layers."""
        for there, here in pairs:
            self.pool[here].copy_(self.host[there], non_blocking=True)


def count_blocks(layout: PoolLayout, dtype: torch.dtype, *, memory: int, useful: int) -> int:
    """Return how many blocks a pool of `memory` bytes has, including the null block.

    At most `useful` blocks can be in use at once, so there are never more. Raise InvalidParameter
    if the memory is too small for two blocks.
    """
    block_bytes = layout.elements * dtype.itemsize
    affordable = memory // block_bytes
    if affordable < 2:
        raise InvalidParameter(
            f"{memory:,} bytes hold no KV pool: one block of this model takes {block_bytes:,}. "
            "Raise --kv-memory."
        )
    return min(affordable, useful + 1)


def count_host_blocks(layout: PoolLayout, dtype: torch.dtype, *, memory: int, device: int) -> int:
    """Return how many blocks a host pool of `memory` bytes has, including the null block, or 0.

    Never more than the `device` pool has, because more are never computed.
    """
    affordable = memory // (layout.elements * dtype.itemsize)
    return min(affordable, device) if affordable >= 2 else 0

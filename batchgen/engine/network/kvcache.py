"""The memory of keys and values: one tensor on the device, sized once."""

from __future__ import annotations

import torch

from batchgen.errors import InvalidParameter
from batchgen_kernels.cpu.memory import prefer_huge_pages
from batchgen_kernels.layout import PoolLayout


class KVCache:
    """The pool `[num_blocks, E]` and, for groups that are swapped out, a smaller one on the host.

    `layout.views(pool)` are the layers. Not initialised: an unwritten slot may hold anything, NaN
    included, and memory that no block uses is never touched.

    On CUDA nobody waits for a swap: moves, copies and kernels run in the order of one stream, and
    nothing but these moves ever reads or writes the host pool. So a block of either pool that is
    given out again is overwritten after whatever was still to be read from it.
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
        """Take the memory; `host_blocks` is 0 where nothing is ever swapped."""
        self.layout = layout
        self.pool = torch.empty(num_blocks, layout.elements, dtype=dtype, device=device)
        prefer_huge_pages(self.pool)
        pinned = device.type == "cuda"
        self.host = torch.empty(host_blocks, layout.elements, dtype=dtype, pin_memory=pinned)

    @property
    def num_blocks(self) -> int:
        """Blocks of the device pool, the null block included."""
        return len(self.pool)

    def swap_out(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (device, host), all layers."""
        # One by one: each is one run of memory, and gathering them would take as much again.
        for here, there in pairs:
            self.host[there].copy_(self.pool[here], non_blocking=True)

    def swap_in(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (host, device), all layers."""
        for there, here in pairs:
            self.pool[here].copy_(self.host[there], non_blocking=True)


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


def count_host_blocks(layout: PoolLayout, dtype: torch.dtype, *, memory: int, device: int) -> int:
    """Return how many blocks a host pool of `memory` bytes has, 0 where it holds none.

    Never more than the `device` pool has: what does not fit there was never computed. The null
    block is one of them and never moves.
    """
    affordable = memory // (layout.elements * dtype.itemsize)
    return min(affordable, device) if affordable >= 2 else 0

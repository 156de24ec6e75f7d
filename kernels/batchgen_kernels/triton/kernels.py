"""Paged attention by Triton kernels, for pools of float32, float16 and bfloat16 on a GPU.

Without a GPU, tests run the same kernels under Triton's interpreter: TRITON_INTERPRET=1 must be in
the environment when triton is first imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import triton
from torch import Tensor

from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.triton import attention, cache
from batchgen_kernels.triton.staging import Staging
from batchgen_kernels.triton.tiling import (
    AttendSpec,
    Tile,
    attend_spec,
    choose_splits,
    choose_tile,
    interpreted,
    serves,
    write_spec,
)
from batchgen_kernels.triton.work import FIELDS, cut_items, find_slots, pack_tables

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LOG2_E = 1.4426950408889634
COPY_CHUNK = 4096  # elements that one program copies
NO_GPU_PROCESSORS = 64  # assumed under the interpreter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launch:
    """The arguments of one layer's attention kernel in this step."""

    items: Tensor  # int32 [n · 4]
    tile: Tile
    spec: AttendSpec

    @property
    def blocks(self) -> int:
        """The number of query blocks, n."""
        return len(self.items) // FIELDS


def unsupported(pool: Tensor, layout: PoolLayout) -> str | None:
    """Return the reason why these kernels do not support `pool`, None if they do."""
    if pool.device.type != "cuda" and not interpreted():
        return (
            f"Triton kernels run on a GPU, and this pool is on {pool.device}; "
            "without one they run under TRITON_INTERPRET=1 alone, for tests"
        )
    if pool.dtype not in DTYPES:
        return f"Triton kernels serve float32, float16 and bfloat16, not {pool.dtype}"
    for number, shape in enumerate(layout.layers):
        if not serves(shape):
            return (
                "Triton kernels serve heads of up to 256 elements and groups of up to 16; layer "
                f"{number} has {shape.key_width} and {shape.value_width}, and {shape.group}"
            )
    return None


class TritonKernels:
    """Paged attention: two launches per layer, three if long sequences are split; one for copies.

    Data that is equal for all layers is computed once, in `plan`, and sent in one copy.
    """

    name: ClassVar[str] = "triton"

    def __init__(self, pool: Tensor, layout: PoolLayout) -> None:
        """Use a contiguous `pool` [num_blocks, E] for which `unsupported` returns None."""
        assert pool.is_contiguous()
        assert len(pool) * layout.block_size < 2**31  # slots are int32
        self.pool = pool
        self.layout = layout
        self._views = layout.views(pool)
        self._writes = [write_spec(shape, page=layout.block_size) for shape in layout.layers]
        # Float32 on the pool's device; the layer's own may differ.
        self._sinks = [
            None if shape.sinks is None else shape.sinks.detach().to(pool.device, torch.float32)
            for shape in layout.layers
        ]
        self._processors = _processors(pool.device)
        self._indices, self._pairs = Staging(pool.device), Staging(pool.device)
        # Set by `plan`: int32 [T], int32 [Σ blocks], and a launch for each layer.
        self._slots = self._tables = torch.empty(0, dtype=torch.int32)
        self._launches: list[Launch] = []

    @property
    def signature(self) -> tuple[object, ...]:
        """The values of this step that a captured graph would contain, without the model's tensors.

        Steps with equal signatures differ only in the content of the index buffer.
        """
        addresses = self._slots.data_ptr(), self._tables.data_ptr()
        launches = ((one.items.data_ptr(), one.blocks, one.spec) for one in self._launches)
        return (*addresses, len(self._slots), *launches)

    def reserve(self, *, sequences: int, blocks: int) -> None:
        """Allocate the index buffer for decodes of `sequences` with `blocks` blocks in all.

        It does not move in such a step.
        """
        lists = len({shape.group for shape in self.layout.layers})
        self._indices.reserve(sequences * (1 + FIELDS * lists) + blocks + 2 * FIELDS)

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), all layers."""
        if pairs:
            (sent,) = self._pairs.send([np.array(pairs, dtype=np.int32)])
            elements = self.layout.elements
            grid = (len(pairs), triton.cdiv(elements, COPY_CHUNK))
            cache.copy[grid](self.pool, sent, elements, CHUNK=COPY_CHUNK)

    def plan(self, batch: StepBatch) -> None:
        """Cut the step into query blocks, find every slot, and send both to the device."""
        layers, page = self.layout.layers, self.layout.block_size
        tables, starts = pack_tables(batch, page)
        decode = int(batch.counts.max()) == 1
        tiles = [choose_tile(shape, self.pool.dtype, decode=decode) for shape in layers]
        # Layers whose query blocks have the same number of tokens share them.
        tokens = [tile.rows // shape.group for tile, shape in zip(tiles, layers, strict=True)]
        distinct = sorted({1} if decode else set(tokens))
        cut = [cut_items(batch, starts, n) for n in distinct]
        # The tables come last: only their size can differ between steps with equal counts.
        self._slots, *sent, self._tables = self._indices.send(
            [find_slots(batch, page), *cut, tables]
        )
        items = dict(zip(distinct, sent, strict=True))
        longest = int(batch.lengths.max())
        self._launches = [
            self._launch(shape, tile, items[1 if decode else n], longest)
            for shape, tile, n in zip(layers, tiles, tokens, strict=True)
        ]

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys and values, [T, kv_heads, width]."""
        key, value, spec = _rows(key), _rows(value), self._writes[layer]
        rows = len(key) * spec.heads
        cache.write[(triton.cdiv(rows, spec.rows),)](
            *self._views[layer],
            key,
            value,
            self._slots,
            rows,
            self.layout.elements,
            *key.stride()[:2],
            *value.stride()[:2],
            S=spec,
        )

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, query_heads, value_width] for queries [T, query_heads, key_width]."""
        shape, spec = self.layout.layers[layer], self._launches[layer].spec
        out = query.new_empty(len(query), shape.query_heads, shape.value_width)
        if spec.splits == 1:
            self._attend(layer, query, out, out, out)
            return out
        places = (len(query), shape.query_heads, spec.splits)
        tops, sums = query.new_empty(2, *places, dtype=torch.float32)
        parts = query.new_empty(*places, shape.value_width, dtype=torch.float32)
        self._attend(layer, query, parts, tops, sums)
        attention.merge[places[:2]](out, parts, tops, sums, S=spec)
        return out

    def _attend(self, layer: int, query: Tensor, out: Tensor, tops: Tensor, sums: Tensor) -> None:
        launch, sinks = self._launches[layer], self._sinks[layer]
        shape, query = self.layout.layers[layer], _rows(query)
        attention.attend[(launch.blocks, shape.kv_heads, launch.spec.splits)](
            out,
            tops,
            sums,
            query,
            *self._views[layer],
            self._tables,
            launch.items,
            self.pool if sinks is None else sinks,  # any tensor: not read without sinks
            self.layout.elements,
            *query.stride()[:2],
            *_factors(shape),
            S=launch.spec,
            num_warps=launch.tile.warps,
            num_stages=launch.tile.stages,
        )

    def _launch(self, shape: LayerShape, tile: Tile, items: Tensor, longest: int) -> Launch:
        seen = longest if shape.window is None else min(longest, shape.window)
        programs = len(items) // FIELDS * shape.kv_heads
        spec = attend_spec(
            shape,
            tile,
            splits=choose_splits(programs, seen, self._processors),
            page=self.layout.block_size,
            dtype=self.pool.dtype,
            hip=torch.version.hip is not None,
        )
        return Launch(items=items, tile=tile, spec=spec)


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return NO_GPU_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _factors(shape: LayerShape) -> tuple[float, float]:
    """Return the factors that turn scores into units of log2: before and after the tanh."""
    if shape.softcap is None:
        return shape.scale * LOG2_E, 0.0
    return shape.scale / shape.softcap, shape.softcap * LOG2_E


def _rows(tensor: Tensor) -> Tensor:
    """Return [T, heads, width] whose last axis is contiguous."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()

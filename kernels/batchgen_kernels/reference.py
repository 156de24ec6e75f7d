"""The kernels in plain torch, on any device; tests compare the other kernels with them.

Scores, softmax and sums are computed in float32 for every dtype of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.tiles import Tile, cut


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """The keys or the values of one layer as contiguous runs of memory.

    A head's slots in a block are one run of B · width elements. Every run starts at a multiple of
    the layout's unit, so blocks are gathered as whole runs.
    """

    # View of the pool [·, B · width]: the run that starts at each unit.
    every: Tensor
    # [heads, 1] the unit where each head's run starts in block 0.
    heads: Tensor
    width: int

    def gather(self, blocks: Tensor) -> Tensor:
        """Return [N, heads, W · B, width] in float32 for the first units of blocks [N, W]."""
        index = blocks[:, None] + self.heads
        run = self.every.index_select(0, index.flatten())
        return run.view(len(blocks), len(self.heads), -1, self.width).float()


class ReferenceKernels:
    """Dense attention over gathered blocks, with a few large operations per tile and layer."""

    name: ClassVar[str] = "reference"

    def __init__(self, pool: Tensor, layout: PoolLayout) -> None:
        self.pool = pool
        self.layout = layout
        self._views = layout.views(pool)
        self._windows = {shape.window for shape in layout.layers}
        self._runs = [
            (
                self._runs_at(keys, shape.kv_heads, shape.key_width),
                self._runs_at(values, shape.kv_heads, shape.value_width),
            )
            for shape, (keys, values) in zip(layout.layers, layout.offsets, strict=True)
        ]
        self._tiles: list[Tile] = []
        # The block of each new token and its slot there, [T] each; set by `plan`.
        self._block = torch.empty(0, dtype=torch.int64)
        self._slot = torch.empty(0, dtype=torch.int64)

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), all layers."""
        if pairs:
            blocks = torch.tensor(pairs, device=self.pool.device)
            self.pool[blocks[:, 1]] = self.pool[blocks[:, 0]]

    def plan(self, batch: StepBatch) -> None:
        """Cut the step into tiles and find the slot of every new token."""
        device, size = self.pool.device, self.layout.block_size
        tables = torch.from_numpy(batch.tables).to(device, torch.int64)
        counts = torch.from_numpy(batch.counts).to(device, torch.int64)
        starts = torch.from_numpy(batch.starts).to(device, torch.int64)
        sequence = torch.repeat_interleave(counts)
        first = torch.cumsum(counts, 0) - counts
        position = torch.arange(len(sequence), device=device) + (starts - first)[sequence]
        self._block = tables[sequence, position // size]
        self._slot = position % size
        self._tiles = cut(batch, layout=self.layout, windows=self._windows, device=device)

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys and values, [T, kv_heads, width]."""
        for view, new in zip(self._views[layer], (key, value), strict=True):
            view[self._block, :, self._slot] = new.to(view.dtype)

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, query_heads, value_width] for queries [T, query_heads, key_width]."""
        shape = self.layout.layers[layer]
        out = query.new_empty(len(query), shape.query_heads, shape.value_width)
        for tile in self._tiles:
            out[tile.tokens] = self._attend_tile(layer, tile, query[tile.tokens]).to(out.dtype)
        return out

    def _attend_tile(self, layer: int, tile: Tile, query: Tensor) -> Tensor:
        """Return [N · n, query_heads, value_width] for the queries of one tile."""
        shape = self.layout.layers[layer]
        hidden, dead_sequences, dead_slots = tile.hidden[shape.window]
        n, tokens, slots = hidden.shape
        keys, values = (runs.gather(tile.blocks) for runs in self._runs[layer])
        values[dead_sequences, :, dead_slots] = 0.0  # 0 · NaN would be NaN

        # (N, n, Hkv, G, D) → (N, Hkv, n · G, D): the rows that read the same keys are one matrix
        split = (n, tokens, shape.kv_heads, shape.group, shape.key_width)
        rows = query.float().view(split).transpose(1, 2).flatten(2, 3)
        scores = (rows * shape.scale) @ keys.transpose(2, 3)
        scores = scores.view(n, shape.kv_heads, tokens, shape.group, slots)
        if shape.softcap is not None:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        scores.masked_fill_(hidden[:, None, :, None], float("-inf"))
        out = _softmax(scores, shape).flatten(2, 3) @ values
        out = out.view(n, shape.kv_heads, tokens, shape.group, shape.value_width)
        return out.transpose(1, 2).reshape(n * tokens, shape.query_heads, shape.value_width)

    def _runs_at(self, start: int, heads: int, width: int) -> Runs:
        unit, length = self.layout.unit, self.layout.block_size * width
        first = start + length * torch.arange(heads, device=self.pool.device)
        every = self.pool.view(-1).unfold(0, length, unit)
        return Runs(every=every, heads=first[:, None] // unit, width=width)


def _softmax(scores: Tensor, shape: LayerShape) -> Tensor:
    """Return the softmax over the last axis of [N, Hkv, n, G, L], with the layer's sinks."""
    if shape.sinks is None:
        return scores.softmax(-1)
    sinks = shape.sinks.float().view(1, shape.kv_heads, 1, shape.group, 1)
    with_sinks = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], dim=-1)
    return with_sinks.softmax(-1)[..., :-1]

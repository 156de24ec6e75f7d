"""Sequences in a paged pool whose attention is known, for the tests of the kernels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from batchgen_kernels.interface import AttentionKernels, LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.registry import create_kernels

NUM_BLOCKS = 128
BLOCK_SIZE = 4

Shares = tuple[tuple[int, int], ...]  # (sequence, new tokens) of each sequence in a step


class Simulation:
    """Sequences with random tokens, fed to kernels step by step and to the oracle at once."""

    def __init__(
        self,
        name: str,
        layers: list[LayerShape],
        *,
        seed: int = 0,
        block_size: int = BLOCK_SIZE,
        blocks: int = NUM_BLOCKS,
    ) -> None:
        on_gpu = name == "triton" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.layout = PoolLayout(layers=tuple(layers), block_size=block_size)
        self.pool = torch.full((blocks, self.layout.elements), math.nan, device=self.device)
        self.kernels: AttentionKernels = create_kernels(name, self.pool, self.layout)
        self.layers = layers
        self.generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(blocks - 1, generator=self.generator) + 1
        self.free = [int(block) for block in order]
        self.tables: list[list[int]] = []
        # Per sequence, per layer: keys [t, Hkv, Dk] and values [t, Hkv, Dv] written so far.
        self.keys: list[list[Tensor]] = []
        self.values: list[list[Tensor]] = []

    def add(self) -> int:
        self.tables.append([])
        self.keys.append([torch.empty(0, s.kv_heads, s.key_width) for s in self.layers])
        self.values.append([torch.empty(0, s.kv_heads, s.value_width) for s in self.layers])
        return len(self.tables) - 1

    def fork(self, parent: int) -> int:
        """Add a sequence that shares the full blocks of `parent`; a started one is copied."""
        child, size = self.add(), self.layout.block_size
        self.keys[child], self.values[child] = list(self.keys[parent]), list(self.values[parent])
        full, rest = divmod(len(self.keys[parent][0]), size)
        self.tables[child] = self.tables[parent][:full]
        if rest:
            self.tables[child].append(self.free.pop())
            self.kernels.copy([(self.tables[parent][full], self.tables[child][full])])
        return child

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def plan(self, shares: Shares) -> None:
        starts = [len(self.keys[s][0]) for s, _ in shares]
        for (s, count), start in zip(shares, starts, strict=True):
            while len(self.tables[s]) * self.layout.block_size < start + count:
                self.tables[s].append(self.free.pop())
        width = max(len(self.tables[s]) for s, _ in shares)
        tables = [self.tables[s] + [0] * (width - len(self.tables[s])) for s, _ in shares]
        self.kernels.plan(
            StepBatch(
                tables=np.array(tables, dtype=np.int32),
                starts=np.array(starts, dtype=np.int32),
                counts=np.array([count for _, count in shares], dtype=np.int32),
            )
        )

    def step(self, *shares: tuple[int, int], check: bool = True) -> float:
        """Run one step of (sequence, new tokens); return the largest error over layers.

        Without `check` keys and values are written, nothing is attended and there is no error.
        """
        self.plan(shares)
        return max(self.run_layer(i, shares, check) for i in range(len(self.layers)))

    def run_layer(self, layer: int, shares: Shares, check: bool) -> float:
        shape, total = self.layers[layer], sum(count for _, count in shares)
        query = self.random(total, shape.query_heads, shape.key_width)
        key = self.random(total, shape.kv_heads, shape.key_width)
        value = self.random(total, shape.kv_heads, shape.value_width)
        self.write(layer, key, value)
        expected, at = [], 0
        for s, count in shares:
            new = slice(at, at + count)
            self.keys[s][layer] = torch.cat([self.keys[s][layer], key[new]])
            self.values[s][layer] = torch.cat([self.values[s][layer], value[new]])
            if check:
                seen = self.keys[s][layer], self.values[s][layer]
                expected.append(oracle(shape, query[new], *seen))
            at += count
        if not check:
            return 0.0
        out = self.attend(layer, query)
        assert out.shape == (total, shape.query_heads, shape.value_width)
        return float((out - torch.cat(expected)).abs().max())

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        self.kernels.write(layer, key.to(self.device), value.to(self.device))

    def attend(self, layer: int, query: Tensor) -> Tensor:
        return self.kernels.attend(layer, query.to(self.device)).cpu()

    def outputs(self, layer: int, shares: Shares) -> Tensor:
        """Run one layer for one more step, whose tokens are drawn sequence by sequence."""
        shape = self.layers[layer]
        self.plan(shares)
        drawn = [
            [
                self.random(count, heads, shape.key_width)
                for heads in (shape.query_heads, shape.kv_heads)
            ]
            for _, count in shares
        ]
        query, key = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        self.write(layer, key, key)
        return self.attend(layer, query)


def oracle(shape: LayerShape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the last len(query) tokens, one token and one head at a time."""
    out = torch.empty(len(query), shape.query_heads, shape.value_width)
    for i in range(len(query)):
        position = len(keys) - len(query) + i
        first = 0 if shape.window is None else max(0, position - shape.window + 1)
        for head in range(shape.query_heads):
            seen = slice(first, position + 1)
            scores = keys[seen, head // shape.group].double() @ query[i, head].double()
            scores = scores * shape.scale
            if shape.softcap is not None:
                scores = shape.softcap * torch.tanh(scores / shape.softcap)
            weights = scores.exp()
            total = weights.sum()
            if shape.sinks is not None:
                total = total + shape.sinks[head].exp()
            out[i, head] = (weights / total) @ values[seen, head // shape.group].double()
    return out

"""Paged attention in C++ for float32 pools on the CPU."""

from __future__ import annotations

import ctypes
import weakref
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from batchgen_kernels.cpu.library import Layer
from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout


class CpuKernels:
    """Paged attention: sequences read shared blocks together, and threads share long sequences.

    A row's result has the same bits in every batch.
    """

    name: ClassVar[str] = "cpu"

    def __init__(self, library: ctypes.CDLL, pool: Tensor, layout: PoolLayout) -> None:
        """Use a contiguous float32 `pool` [num_blocks, E] in main memory."""
        assert pool.dtype == torch.float32
        assert pool.device.type == "cpu"
        assert pool.is_contiguous()
        self.pool = pool
        self.layout = layout
        self._library = library
        self._threads = 1
        # Kinds of layers, each planned once: (window or 0, group, key heads).
        kinds = list(dict.fromkeys(_kind(shape) for shape in layout.layers))
        windows, groups, heads = np.array(kinds, dtype=np.int32).T.copy()
        self._handle = ctypes.c_void_p(
            library.new(
                layout.elements,
                layout.block_size,
                len(kinds),
                windows.ctypes.data,
                groups.ctypes.data,
                heads.ctypes.data,
            )
        )
        weakref.finalize(self, library.free, self._handle)
        # Kept here because the layers hold only their addresses.
        self._sinks = [
            None if shape.sinks is None else shape.sinks.detach().float().contiguous()
            for shape in layout.layers
        ]
        self._layers = [
            Layer(
                keys=keys,
                values=values,
                key_width=shape.key_width,
                value_width=shape.value_width,
                kind=kinds.index(_kind(shape)),
                scale=shape.scale,
                softcap=shape.softcap or 0.0,
                sinks=None if sinks is None else sinks.data_ptr(),
            )
            for shape, (keys, values), sinks in zip(
                layout.layers, layout.offsets, self._sinks, strict=True
            )
        ]

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), all layers."""
        if pairs:
            blocks = np.array(pairs, dtype=np.int64)
            threads = torch.get_num_threads()
            self._library.copy(
                self.pool.data_ptr(), self.layout.elements, len(pairs), blocks.ctypes.data, threads
            )

    def plan(self, batch: StepBatch) -> None:
        """Divide the work of a step between the threads."""
        tables, starts, counts = (
            np.ascontiguousarray(array, dtype=np.int32)
            for array in (batch.tables, batch.starts, batch.counts)
        )
        self._threads = torch.get_num_threads()
        self._library.plan(
            self._handle,
            *tables.shape,
            tables.ctypes.data,
            starts.ctypes.data,
            counts.ctypes.data,
            self._threads,
        )

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys and values, [T, kv_heads, width]."""
        key, value = _rows(key), _rows(value)
        self._library.write(
            self._handle,
            self._layers[layer],
            self.pool.data_ptr(),
            *_strided(key),
            *_strided(value),
            self._threads,
        )

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, query_heads, value_width] for queries [T, query_heads, key_width]."""
        shape, rows = self.layout.layers[layer], _rows(query)
        out = torch.empty(len(query), shape.query_heads, shape.value_width)
        self._library.attend(
            self._handle,
            self._layers[layer],
            self.pool.data_ptr(),
            *_strided(rows),
            out.data_ptr(),
            self._threads,
        )
        return out.to(query.dtype)


def _kind(shape: LayerShape) -> tuple[int, int, int]:
    return shape.window or 0, shape.group, shape.kv_heads


def _rows(tensor: Tensor) -> Tensor:
    """Return float32 [T, heads, width] whose last axis is contiguous."""
    tensor = tensor.float()
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _strided(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.data_ptr(), tensor.stride(0), tensor.stride(1)

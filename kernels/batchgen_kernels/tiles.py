"""Cuts a step into dense tiles for the reference kernels.

A tile is N sequences with n new tokens each over keys padded to L slots:

    decode     many sequences of like length, one new token each     N ≤ 32, n = 1
    prefill    one sequence, some of its new tokens                  N = 1,  n tokens

All index tensors are computed here, once per step; a layer adds only its own offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from batchgen_kernels.interface import StepBatch
from batchgen_kernels.layout import PoolLayout

DECODE_ROWS = 32  # the most sequences of one decode tile
PADDING = 1.25  # in one decode tile, the longest table is at most PADDING * shortest + 1 blocks
SCORES = 2**20  # the most query tokens times key slots of one prefill tile, per head

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """N sequences, n query tokens each, L key slots each."""

    # [N · n] rows of the packed queries.
    tokens: Tensor
    # [N, W] first unit of each block in the pool; L = W · block_size.
    blocks: Tensor
    # {window: (hidden [N, n, L] bool, dead sequences [k], dead slots [k])}: the slots that a query
    # does not see, and those that no query of the tile sees, whose content must not be used.
    hidden: dict[int | None, tuple[Tensor, Tensor, Tensor]]


def cut(
    batch: StepBatch, *, layout: PoolLayout, windows: set[int | None], device: torch.device
) -> list[Tile]:
    """Return the tiles of a step, for layers with each of `windows`."""
    block_size, block_units = layout.block_size, layout.elements // layout.unit
    ends = np.cumsum(batch.counts, dtype=np.int64)
    pieces = [
        *_decode_pieces(batch, block_size),
        *(
            piece
            for i in np.flatnonzero(batch.counts > 1).tolist()
            for piece in _prefill_pieces(batch, i)
        ),
    ]
    tiles = []
    for rows, first, last in pieces:
        # Positions of the query tokens in their sequences, [N, n].
        positions = batch.starts[rows, None].astype(np.int64) + np.arange(first, last)
        packed = (ends - batch.counts)[rows, None] + np.arange(first, last)
        width = -(-int(positions.max() + 1) // block_size)
        hidden = {w: _hidden(positions, width * block_size, w, device) for w in windows}
        tiles.append(
            Tile(
                tokens=torch.from_numpy(packed.ravel()).to(device),
                blocks=torch.from_numpy(
                    batch.tables[rows, :width].astype(np.int64) * block_units
                ).to(device),
                hidden=hidden,
            )
        )
    return tiles


def _decode_pieces(batch: StepBatch, block_size: int) -> list[tuple[Ints, int, int]]:
    rows = np.flatnonzero(batch.counts == 1)
    widths = -(-batch.lengths[rows] // block_size)
    order = np.argsort(widths, kind="stable")
    pieces: list[tuple[Ints, int, int]] = []
    start = 0
    for i in range(1, len(order) + 1):
        full = i - start == DECODE_ROWS
        if i == len(order) or full or widths[order[i]] > PADDING * widths[order[start]] + 1:
            pieces.append((rows[order[start:i]], 0, 1))
            start = i
    return pieces


def _prefill_pieces(batch: StepBatch, row: int) -> list[tuple[Ints, int, int]]:
    """Cut the new tokens of one sequence so that a piece's scores stay small."""
    count, length = int(batch.counts[row]), int(batch.lengths[row])
    step = max(1, SCORES // length)
    rows = np.array([row], dtype=np.int64)
    return [(rows, first, min(first + step, count)) for first in range(0, count, step)]


def _hidden(
    positions: Ints, slots: int, window: int | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    distance = positions[:, :, None] - np.arange(slots)
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    sequences, dead = np.nonzero(hidden.all(axis=1))
    tensors = [torch.from_numpy(array).to(device) for array in (hidden, sequences, dead)]
    return tensors[0], tensors[1], tensors[2]

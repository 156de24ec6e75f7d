"""Tile sizes and the other constants that the kernels are compiled for.

No choice spills registers: `tests/kernels/budget.py` compiles all of them and checks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from batchgen_kernels.interface import LayerShape

MAX_WIDTH = 256  # elements of one head
MAX_GROUP = 16  # query heads that share one key head; these are the rows of a decode
MIN_DOT = 16  # the shortest side of a matrix product
MAX_SPLITS = 32
SPLIT_SLOTS = 256  # the fewest keys of one split
WAVES = 2  # splits are made until there are so many programs per processor
WRITE_ELEMENTS = 2048  # key elements that one program stores

SHORT = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The piece of work of one program, and its threads."""

    rows: int  # query rows: tokens times query heads of the group
    slots: int  # keys per iteration
    warps: int
    stages: int  # stages of the pipeline that loads keys and values ahead


# {(decode, two bytes per element, heads wider than 128): tile}. Larger tiles spill registers on
# sm_80, sm_90 or gfx942, or need more than the 64 KiB of shared memory that gfx942 has.
TILES = {
    (False, True, False): Tile(rows=128, slots=64, warps=8, stages=2),
    (False, True, True): Tile(rows=64, slots=32, warps=8, stages=2),
    (False, False, False): Tile(rows=16, slots=32, warps=8, stages=2),
    (False, False, True): Tile(rows=16, slots=16, warps=8, stages=2),
    (True, True, False): Tile(rows=16, slots=64, warps=4, stages=2),
    (True, True, True): Tile(rows=16, slots=32, warps=4, stages=2),
    (True, False, False): Tile(rows=16, slots=32, warps=8, stages=2),
    (True, False, True): Tile(rows=16, slots=16, warps=8, stages=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendSpec:
    """The constants that the attention kernel is compiled for."""

    key_width: int
    value_width: int
    group: int
    page: int
    window: int  # 0: none
    softcap: bool
    sinks: bool
    splits: int
    rows: int
    slots: int
    # Widths rounded up to powers of two.
    wide_k: int
    wide_v: int
    # The type and the precision of matrix products.
    dot: tl.dtype
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSpec:
    """The constants that the storing kernel is compiled for."""

    heads: int
    key_width: int
    value_width: int
    page: int
    rows: int
    wide_k: int
    wide_v: int


def interpreted() -> bool:
    """Return whether kernels run under Triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)


def padded(width: int) -> int:
    """Return the power of two that holds a head of `width` elements."""
    return max(MIN_DOT, 1 << (width - 1).bit_length())


def serves(shape: LayerShape) -> bool:
    """Return whether the kernels can compute a layer of this shape."""
    return max(shape.key_width, shape.value_width) <= MAX_WIDTH and shape.group <= MAX_GROUP


def choose_tile(shape: LayerShape, dtype: torch.dtype, *, decode: bool) -> Tile:
    """Return the tile for a layer over a pool of `dtype`.

    With `decode`, every sequence has one new token, so the rows are the heads of one group.
    """
    wide = max(padded(shape.key_width), padded(shape.value_width)) > 128
    return TILES[decode, dtype in SHORT, wide]


def choose_splits(programs: int, longest: int, processors: int) -> int:
    """Return the number of splits, a power of two, of the keys of every query block.

    It is one if `programs` fill the GPU anyway, or if the `longest` sequence has few keys.
    """
    wanted = min(WAVES * processors // max(1, programs), longest // SPLIT_SLOTS, MAX_SPLITS)
    return 1 << max(0, wanted.bit_length() - 1)


def attend_spec(
    shape: LayerShape, tile: Tile, *, splits: int, page: int, dtype: torch.dtype, hip: bool
) -> AttendSpec:
    """Return the constants of a layer's attention kernel over a pool of `dtype`."""
    return AttendSpec(
        key_width=shape.key_width,
        value_width=shape.value_width,
        group=shape.group,
        page=page,
        window=shape.window or 0,
        softcap=shape.softcap is not None,
        sinks=shape.sinks is not None,
        splits=splits,
        rows=tile.rows,
        slots=tile.slots,
        wide_k=padded(shape.key_width),
        wide_v=padded(shape.value_width),
        # The interpreter does not multiply 16-bit types.
        dot=tl.float32 if interpreted() else SHORT.get(dtype, tl.float32),
        precision=_precision(dtype, hip=hip),
    )


def write_spec(shape: LayerShape, *, page: int) -> WriteSpec:
    """Return the constants of a layer's storing kernel."""
    wide_k, wide_v = padded(shape.key_width), padded(shape.value_width)
    return WriteSpec(
        heads=shape.kv_heads,
        key_width=shape.key_width,
        value_width=shape.value_width,
        page=page,
        rows=WRITE_ELEMENTS // max(wide_k, wide_v),
        wide_k=wide_k,
        wide_v=wide_v,
    )


def _precision(dtype: torch.dtype, *, hip: bool) -> str:
    """Return the precision of matrix products of `dtype`, in Triton's words.

    Only AMD's matrix units multiply float32. On NVIDIA, three passes of tf32 are about as exact.
    """
    return "ieee" if hip or dtype != torch.float32 else "tf32x3"

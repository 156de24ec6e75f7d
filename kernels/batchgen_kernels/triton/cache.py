"""Kernels that change the pool on a GPU: store new tokens, and copy whole blocks."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def write(
    keys: tl.tensor,  # this layer's keys in block 0, [Hkv, page, Dk]
    values: tl.tensor,  # [Hkv, page, Dv]
    key: tl.tensor,  # [T, Hkv, Dk]
    value: tl.tensor,  # [T, Hkv, Dv]
    slots: tl.tensor,  # int32 [T]: block · page + place in it
    rows: tl.tensor,  # T · Hkv
    block_stride: tl.tensor,
    key_token_stride: tl.tensor,
    key_head_stride: tl.tensor,
    value_token_stride: tl.tensor,
    value_head_stride: tl.tensor,
    S: tl.constexpr,  # WriteSpec
) -> None:
    """Store S.rows rows (token, head) of keys and values in the slots of their tokens."""
    row = tl.program_id(0) * S.rows + tl.arange(0, S.rows)
    live = row < rows
    token, head = (row // S.heads).to(tl.int64), row % S.heads
    slot = tl.load(slots + token, mask=live, other=0)
    block = (slot // S.page).to(tl.int64) * block_stride
    inside = head * S.page + slot % S.page

    d = tl.arange(0, S.wide_k)[None, :]
    mask = live[:, None] & (d < S.key_width)
    source = (token * key_token_stride + head * key_head_stride)[:, None] + d
    place = (block + inside * S.key_width)[:, None] + d
    tl.store(keys + place, tl.load(key + source, mask=mask), mask=mask)

    d = tl.arange(0, S.wide_v)[None, :]
    mask = live[:, None] & (d < S.value_width)
    source = (token * value_token_stride + head * value_head_stride)[:, None] + d
    place = (block + inside * S.value_width)[:, None] + d
    tl.store(values + place, tl.load(value + source, mask=mask), mask=mask)


@triton.jit
def copy(
    pool: tl.tensor,  # [num_blocks, E]
    pairs: tl.tensor,  # int32 [n, 2]: source, destination
    elements: tl.tensor,  # E
    CHUNK: tl.constexpr,
) -> None:
    """Copy one chunk of one block, which holds all layers."""
    pair = pairs + 2 * tl.program_id(0)
    source = tl.load(pair).to(tl.int64) * elements
    destination = tl.load(pair + 1).to(tl.int64) * elements
    at = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    live = at < elements
    tl.store(pool + destination + at, tl.load(pool + source + at, mask=live), mask=live)

"""Paged attention on a GPU: one kernel for prefill, decode and mixed steps, one to merge splits.

A program computes one query block on one key head:

    rows m     token 0: head 0 1 2 │ token 1: head 0 1 2 │ …    the group packed
    slots n    first ░░│▓▓▓▓▓▓▓│▓▓▓▓▓▓▓│▓▓▓░░ end               in tiles of any page size

Slots before the first row's window and after the last row's end (░) are not loaded, because they
may hold NaN. Scores are in units of log2, so that every exponential is one exp2.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend(
    out: tl.tensor,  # [T, Hq, Dv]; if keys are split, float32 [T, Hq, splits, Dv]
    tops: tl.tensor,  # float32 [T, Hq, splits]: the largest score; used if keys are split
    sums: tl.tensor,  # float32 [T, Hq, splits]: Σ exp2(score - top); used if keys are split
    query: tl.tensor,  # [T, Hq, Dk]
    keys: tl.tensor,  # this layer's keys in block 0, [Hkv, page, Dk]
    values: tl.tensor,  # [Hkv, page, Dv]
    tables: tl.tensor,  # int32: the blocks of one sequence after the other
    items: tl.tensor,  # int32 [n, 4]: start of the table, first row, tokens, first position
    sinks: tl.tensor,  # float32 [Hq], used if the layer has sinks
    block_stride: tl.tensor,
    token_stride: tl.tensor,
    head_stride: tl.tensor,
    factor: tl.tensor,  # scores are multiplied by it
    cap: tl.tensor,  # with a softcap, the tanh of the scores is multiplied by it
    S: tl.constexpr,  # AttendSpec
) -> None:
    """Attend the tokens of one item, on one key head, over one split of the keys they see."""
    item = items + 4 * tl.program_id(0)
    split = tl.program_id(2)
    table, row, count = tables + tl.load(item), tl.load(item + 1), tl.load(item + 2)
    start = tl.load(item + 3)
    token = tl.arange(0, S.rows) // S.group
    live = token < count
    head = tl.program_id(1) * S.group + tl.arange(0, S.rows) % S.group
    packed = (row + token).to(tl.int64)
    d = tl.arange(0, S.wide_k)
    place = (packed * token_stride + head * head_stride)[:, None] + d[None, :]
    q = tl.load(query + place, mask=live[:, None] & (d < S.key_width)[None, :], other=0.0)

    top = tl.full([S.rows], float("-inf"), tl.float32)
    total = tl.full([S.rows], 0.0, tl.float32)
    if S.sinks:  # a sink adds to the sum of one split, and nothing to the output
        sink = tl.load(sinks + head, mask=live, other=0.0) * 1.4426950408889634
        top = tl.where(split == 0, sink, top)
        total = tl.where(split == 0, 1.0, total)
    run = block_stride, factor, cap
    seen = start, count, split
    top, total, acc = accumulate(q.to(S.dot), top, total, keys, values, table, seen, run, S)

    index = packed * (tl.num_programs(1) * S.group) + head
    if S.splits == 1:
        acc = acc / total[:, None]
    else:
        index = index * S.splits + split
        tl.store(tops + index, top, mask=live)
        tl.store(sums + index, total, mask=live)
    d = tl.arange(0, S.wide_v)
    mask = live[:, None] & (d < S.value_width)[None, :]
    tl.store(out + (index * S.value_width)[:, None] + d[None, :], acc, mask=mask)


@triton.jit
def accumulate(
    q: tl.tensor,  # [rows, wide_k]
    top: tl.tensor,  # float32 [rows], as is total
    total: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    seen: tl.tuple,  # position of the first token, number of tokens, number of the split
    run: tl.tuple,  # block_stride, factor, cap
    S: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return top, total and Σ weight · value [rows, wide_v], including the keys of this split."""
    start, count, split = seen
    block_stride, factor, cap = run
    end, first = start + count, start * 0
    if S.window > 0:
        first = tl.maximum(start - S.window + 1, 0)
    low, high = first // S.slots, (end + S.slots - 1) // S.slots
    if S.splits > 1:
        share = (high - low + S.splits - 1) // S.splits
        low += split * share
        high = tl.minimum(high, low + share)
    head = tl.program_id(1)
    k_at, v_at = tl.arange(0, S.wide_k), tl.arange(0, S.wide_v)
    position = start + tl.arange(0, S.rows) // S.group
    acc = tl.full([S.rows, S.wide_v], 0.0, tl.float32)
    for tile in range(low, high):
        slot = tile * S.slots + tl.arange(0, S.slots)
        live = (slot >= first) & (slot < end)
        block = tl.load(table + slot // S.page, mask=live, other=0).to(tl.int64) * block_stride
        inside = head * S.page + slot % S.page
        place = (block + inside * S.key_width)[:, None] + k_at[None, :]
        mask = live[:, None] & (k_at < S.key_width)[None, :]
        k = tl.load(keys + place, mask=mask, other=0.0).to(S.dot)
        scores = tl.dot(q, tl.trans(k), input_precision=S.precision) * factor
        if S.softcap:
            scores = cap * tanh(scores)
        visible = slot[None, :] <= position[:, None]
        if S.window > 0:
            visible = visible & (slot[None, :] > (position - S.window)[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # -inf - -inf would be NaN
        weights, shrink = tl.exp2(scores - level[:, None]), tl.exp2(top - level)
        total = total * shrink + tl.sum(weights, 1)
        place = (block + inside * S.value_width)[:, None] + v_at[None, :]
        mask = live[:, None] & (v_at < S.value_width)[None, :]
        v = tl.load(values + place, mask=mask, other=0.0)
        weights = weights.to(v.dtype).to(S.dot)  # rounded as the values are
        acc = tl.dot(weights, v.to(S.dot), acc * shrink[:, None], input_precision=S.precision)
        top = higher
    return top, total, acc


@triton.jit
def tanh(x: tl.tensor) -> tl.tensor:
    """Return tanh of a float32 tensor, to 1e-7."""
    shrunk = tl.exp2(-2.8853900817779268 * tl.abs(x))  # e^(-2|x|): never overflows
    size = (1.0 - shrunk) / (1.0 + shrunk)
    return tl.where(x < 0.0, -size, size)


@triton.jit
def merge(
    out: tl.tensor,  # [T, Hq, Dv]
    parts: tl.tensor,  # float32 [T, Hq, splits, Dv]
    tops: tl.tensor,  # float32 [T, Hq, splits]
    sums: tl.tensor,  # float32 [T, Hq, splits]
    S: tl.constexpr,  # AttendSpec
) -> None:
    """Merge the splits of one token's query head, each weighted by its share of the whole sum."""
    row = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    split = row * S.splits + tl.arange(0, S.splits)
    here = tl.load(tops + split)
    weights = tl.exp2(here - tl.max(here, 0))
    total = tl.sum(weights * tl.load(sums + split), 0)
    d = tl.arange(0, S.wide_v)
    inside = d < S.value_width
    place = (split * S.value_width)[:, None] + d[None, :]
    rows = tl.load(parts + place, mask=inside[None, :], other=0.0)
    merged = tl.sum(rows * weights[:, None], 0) / total
    tl.store(out + row * S.value_width + d, merged, mask=inside)

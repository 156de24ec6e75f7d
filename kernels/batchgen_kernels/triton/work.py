"""A step as index arrays, computed once for all layers. NumPy only.

sequences      A (2 blocks)   B (1)   C (3)
tables       [ 7 3          | 9     | 3 4 8 ]      flat; an item knows where its own begins
items        [ start of the table, first row, tokens, position of the first ]  a query block
slots        [ block · page + slot in it ]         of each new token
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from batchgen_kernels.interface import StepBatch

Ints = npt.NDArray[np.int32]

FIELDS = 4  # int32 fields of an item


def pack_tables(batch: StepBatch, page: int) -> tuple[Ints, Ints]:
    """Return the blocks in use, sequence by sequence, and the start of each sequence's, [S]."""
    blocks = -(-batch.lengths // page)
    used = np.arange(batch.tables.shape[1]) < blocks[:, None]
    starts = np.cumsum(blocks, dtype=np.int32) - blocks
    return batch.tables[used].astype(np.int32, copy=False), starts.astype(np.int32)


def find_slots(batch: StepBatch, page: int) -> Ints:
    """Return the slot in the pool of each new token, [T]."""
    counts = batch.counts
    sequence = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    position = np.arange(len(sequence)) + (batch.starts - first)[sequence]
    slots = batch.tables[sequence, position // page].astype(np.int64) * page + position % page
    return slots.astype(np.int32)


def cut_items(batch: StepBatch, table_starts: Ints, tokens: int) -> Ints:
    """Return the query blocks [n, 4]; each has at most `tokens` new tokens of one sequence.

    Blocks that see most keys come first, so that the GPU does not wait for one of them at the end.
    """
    counts = batch.counts
    cuts = -(-counts // tokens)
    sequence = np.repeat(np.arange(len(counts)), cuts)
    nth = np.arange(len(sequence)) - (np.cumsum(cuts) - cuts)[sequence]
    done = nth * tokens
    first_row = np.cumsum(counts) - counts
    items = np.stack(
        [
            table_starts[sequence],
            first_row[sequence] + done,
            np.minimum(tokens, counts[sequence] - done),
            batch.starts[sequence] + done,
        ],
        axis=1,
    ).astype(np.int32)
    return items[np.argsort(-items[:, 3], kind="stable")]

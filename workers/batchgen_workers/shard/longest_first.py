"""Reorders the tail of a shard: its last rows go to the engine longest first.

in input order   ▬▬▬ ▬ ▬▬ ▬ ▬▬▬▬▬▬▬▬     the batch drains behind one long row
longest first    ▬▬▬▬▬▬▬▬ ▬▬▬ ▬▬ ▬ ▬     rows end together

Results are kept by row number, so the order of the answers does not change.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from batchgen.core.row_lengths import prompt_characters
from batchgen.core.rows import InputRow

BATCHES = 2  # length of the tail in full batches of the engine


def tail_length(max_num_seqs: int) -> int:
    """Return the number of rows at the end of a shard that are its tail."""
    return BATCHES * max_num_seqs


def longest_last_rows_first(rows: Iterable[InputRow], length: int) -> Iterator[InputRow]:
    """Yield the rows in order, but the last `length` rows by `expected_length`, longest first.

    Rows of equal length stay in order. At most `length` + 1 rows are held in memory.
    """
    held: deque[InputRow] = deque()
    for row in rows:
        held.append(row)
        if len(held) > length:
            yield held.popleft()
    yield from sorted(held, key=expected_length, reverse=True)


def expected_length(row: InputRow) -> tuple[float, int]:
    """Return the sort key of a row: (most tokens of its answer, characters of its prompt).

    The real length of an answer is not known in advance, so its bound stands for it.
    """
    bound = row.params.max_tokens
    return (math.inf if bound is None else float(bound), prompt_characters(row))

"""The tail of a shard: its last rows go to the engine longest first.

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

BATCHES = 2  # the tail, in batches of the engine's sequences


def tail_length(max_num_seqs: int) -> int:
    """Return how many rows at the end of a shard are its tail."""
    return BATCHES * max_num_seqs


def longest_last_rows_first(rows: Iterable[InputRow], length: int) -> Iterator[InputRow]:
    """Yield the rows in order, but the last `length` of them longest expected first.

    Rows alike stay in order. No more than `length` + 1 rows are held.
    """
    held: deque[InputRow] = deque()
    for row in rows:
        held.append(row)
        if len(held) > length:
            yield held.popleft()
    yield from sorted(held, key=expected_length, reverse=True)


def expected_length(row: InputRow) -> tuple[float, int]:
    """Return what rows are ordered by: most tokens of the answer, then characters of the prompt.

    How long an answer really gets is known to nobody: its bound stands for it.
    """
    bound = row.params.max_tokens
    return (math.inf if bound is None else float(bound), prompt_characters(row))

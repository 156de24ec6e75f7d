"""Pages of rows: those that fit a filter, by keyset on the row number.

    numbers   0 … 5 │ 6 7 8 9 …        a page is found in two steps: the numbers of rows that fit,
             after ─┘ │   │            from few columns; then their lines, from all columns
                      └───┴─ fit

No page counts all rows. A page that would have to look at more than MOST_EXAMINED rows ends early:
it may be empty and still have a next page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchgen.dataset.streams import row_lines
from batchgen.dataset.streams.json_columns import text_bytes
from batchgen.dataset.streams.record_batches import Config
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service.rows.finished_rows import BOTH, FinishedRows
from batchgen.service.rows.row_filter import RowFilter

MOST_EXAMINED: Final = 1_000_000  # rows that are looked at for one page


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPage:
    """Some rows of a job, in input order."""

    # JSON objects, one a row, as in the stream of lines
    lines: list[bytes]
    # the row after which the next page begins; None if there is no more
    next_after: int | None


def read_page(
    finished: FinishedRows, job: JobRecord, wanted: RowFilter, *, after: int, limit: int
) -> RowPage:
    """Return the next rows with a number above `after` that fit, at most `limit`."""
    numbers: list[int] = []
    examined = 0
    next_after: int | None = None
    found = finished.batches(job, configs=wanted.configs, columns=wanted.columns, after=after)
    for batch in found:
        numbers += wanted.matches(batch)["row"].to_pylist()
        examined += len(batch)
        if len(numbers) > limit:
            next_after = numbers[limit - 1]
            break
        if examined >= MOST_EXAMINED:
            next_after = batch["row"][-1].as_py()
            break
    lines = list(read_lines(finished, job, numbers[:limit], configs=wanted.configs))
    return RowPage(lines=lines, next_after=next_after)


def read_lines(
    finished: FinishedRows, job: JobRecord, numbers: list[int], *, configs: Sequence[Config] = BOTH
) -> Iterator[bytes]:
    """Yield the lines of finished rows by their numbers, which are sorted, without line feeds."""
    if not numbers:
        return
    places = pa.array(numbers, pa.int64())
    batches = finished.batches(
        job,
        configs=configs,
        columns=row_lines.COLUMNS,
        after=numbers[0] - 1,
        only=np.array(numbers),
    )
    for batch in batches:
        rows = batch.filter(pc.is_in(batch["row"], places))
        yield from text_bytes(row_lines.row_lines(rows)).splitlines()
        if batch["row"][-1].as_py() >= numbers[-1]:
            return

"""Convert result rows to Arrow and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from batchgen.core.rows import Choice, ResultRow
from batchgen.dataset.arrow_schema import SCHEMA

FIXED = 512  # bytes of a row without its texts, about
TOKEN = 36  # bytes of a token id in a Python list


def to_table(rows: Sequence[ResultRow]) -> pa.Table:
    """Return the rows, in the order given, as a table of `SCHEMA`.

    `response` and `finish_reason` are those of the first choice, and null on an error row.
    """
    best = [_first_choice(row) for row in rows]
    columns: dict[str, list[Any]] = {
        "row": [row.row for row in rows],
        "custom_id": [row.custom_id for row in rows],
        "response": [choice and choice.text for choice in best],
        "choices": [msgspec.to_builtins(row.choices) for row in rows],
        "finish_reason": [choice and choice.finish_reason for choice in best],
        "model": [row.model for row in rows],
        "usage": [msgspec.to_builtins(row.usage) for row in rows],
        "error": [msgspec.to_builtins(row.error) for row in rows],
        "request_id": [row.request_id for row in rows],
        "attempt": [row.attempt for row in rows],
        "seed": [row.seed for row in rows],
        "created_at": [row.created_at for row in rows],
        "latency_ms": [row.latency_ms for row in rows],
        "extra": [row.extra for row in rows],
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def from_table(table: pa.Table) -> list[ResultRow]:
    """Return the rows of a table of `SCHEMA`; the opposite of `to_table`."""
    column = table.schema.get_field_index("created_at")
    micros = table.column(column).cast(pa.int64())  # integers: no rounding, no time zone database
    plain = table.set_column(column, "created_at", micros)
    return msgspec.convert(plain.to_pylist(), list[ResultRow])


def held_bytes(row: ResultRow) -> int:
    """Return about how many bytes of memory a row takes at most: its texts and lists."""
    # Arrow holds the text of the first choice twice: it is also `response`.
    return (
        FIXED
        + len(row.extra or "")
        + sum(
            2 * len(choice.text) + len(choice.logprobs or "") + TOKEN * len(choice.tokens or ())
            for choice in row.choices
        )
    )


def in_groups(rows: Iterable[ResultRow], limit: int) -> Iterator[list[ResultRow]]:
    """Yield the rows in order, in lists of at most `limit` bytes or of one row."""
    group: list[ResultRow] = []
    size = 0
    for row in rows:
        more = held_bytes(row)
        if group and size + more > limit:
            yield group
            group, size = [], 0
        group.append(row)
        size += more
    if group:
        yield group


def _first_choice(row: ResultRow) -> Choice | None:
    if row.error is not None or not row.choices:
        return None
    return row.choices[0]

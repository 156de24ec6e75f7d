from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa
import pytest

from batchgen.core.rows import ResultRow
from batchgen.dataset.json_lines import escape_line_ends
from batchgen.dataset.openai_output import CHAT, COMPLETIONS, openai_line
from batchgen.dataset.result_table import to_table
from batchgen.dataset.streams.openai_lines import COLUMNS, openai_lines
from batchgen.errors import InvalidParameter
from tests.support.result_rows import ok_row
from tests.support.strange_rows import rows_of_every_kind


def batch_of(rows: Sequence[ResultRow]) -> pa.RecordBatch:
    (batch,) = to_table(rows).combine_chunks().to_batches()
    return batch


def line(row: ResultRow, endpoint: str) -> str:
    return escape_line_ends(orjson.dumps(openai_line(row, endpoint=endpoint))).decode() + "\n"


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_lines_of_a_batch_are_those_of_its_rows(endpoint: str) -> None:
    rows = rows_of_every_kind()
    lines = openai_lines(batch_of(rows), pa.array([endpoint] * len(rows)))
    assert lines.to_pylist() == [line(row, endpoint) for row in rows]


def test_each_row_has_its_own_endpoint() -> None:
    rows = rows_of_every_kind()
    endpoints = [(CHAT, COMPLETIONS)[row.row % 2] for row in rows]
    lines = openai_lines(batch_of(rows), pa.array(endpoints)).to_pylist()
    assert lines == [line(row, endpoint) for row, endpoint in zip(rows, endpoints, strict=True)]


@pytest.mark.parametrize("number", range(len(rows_of_every_kind())))
def test_a_row_of_a_slice_is_the_same_line(number: int) -> None:
    rows = rows_of_every_kind()
    alone = batch_of(rows).slice(number, 1).select(COLUMNS)
    assert openai_lines(alone, pa.array([CHAT])).to_pylist() == [line(rows[number], CHAT)]


def test_another_endpoint_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="/v1/embeddings"):
        openai_lines(batch_of([ok_row(0)]), pa.array(["/v1/embeddings"]))

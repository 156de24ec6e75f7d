from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa
import pytest

from batchgen.core.endpoints import CHAT, COMPLETIONS, RESPONSES
from batchgen.core.rows import ResultRow
from batchgen.dataset.json_lines import escape_line_ends
from batchgen.dataset.openai_output import openai_line
from batchgen.dataset.result_table import to_table
from batchgen.dataset.streams.openai_lines import COLUMNS, Requests, openai_lines
from batchgen.errors import InvalidParameter
from tests.support.result_rows import ok_row
from tests.support.strange_rows import rows_of_every_kind


def batch_of(rows: Sequence[ResultRow]) -> pa.RecordBatch:
    (batch,) = to_table(rows).combine_chunks().to_batches()
    return batch


def line(row: ResultRow, endpoint: str) -> str:
    return escape_line_ends(orjson.dumps(openai_line(row, endpoint=endpoint))).decode() + "\n"


def requests(endpoints: list[str]) -> Requests:
    return Requests(endpoints=pa.array(endpoints))


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_lines_of_a_batch_are_those_of_its_rows(endpoint: str) -> None:
    rows = rows_of_every_kind()
    lines = openai_lines(batch_of(rows), requests([endpoint] * len(rows)))
    assert lines.to_pylist() == [line(row, endpoint) for row in rows]


def test_each_row_has_its_own_endpoint() -> None:
    rows = rows_of_every_kind()
    endpoints = [(CHAT, COMPLETIONS)[row.row % 2] for row in rows]
    lines = openai_lines(batch_of(rows), requests(endpoints)).to_pylist()
    assert lines == [line(row, endpoint) for row, endpoint in zip(rows, endpoints, strict=True)]


@pytest.mark.parametrize("number", range(len(rows_of_every_kind())))
def test_a_row_of_a_slice_is_the_same_line(number: int) -> None:
    rows = rows_of_every_kind()
    alone = batch_of(rows).slice(number, 1).select(COLUMNS)
    assert openai_lines(alone, requests([CHAT])).to_pylist() == [line(rows[number], CHAT)]


def test_an_answer_repeats_its_own_request() -> None:
    rows = [ok_row(0), ok_row(1), ok_row(2)]
    asked = Requests(
        endpoints=pa.array([CHAT, RESPONSES, RESPONSES]),
        echoes=[None, {"top_p": 0.25}, {"top_p": 0.75}],
    )
    bodies = [
        orjson.loads(line)["response"]["body"]
        for line in openai_lines(batch_of(rows), asked).to_pylist()
    ]
    assert [body.get("top_p") for body in bodies] == [None, 0.25, 0.75]
    assert [body["object"] for body in bodies] == ["chat.completion", "response", "response"]


def test_another_endpoint_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="embeddings"):
        openai_lines(batch_of([ok_row(0)]), requests(["/v1/embeddings"]))

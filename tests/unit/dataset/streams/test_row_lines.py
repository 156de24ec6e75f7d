from __future__ import annotations

import json
from collections.abc import Sequence

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from batchgen.core.rows import Choice, ResultRow
from batchgen.dataset.json_lines import escape_line_ends
from batchgen.dataset.result_table import to_table
from batchgen.dataset.streams.row_lines import COLUMNS, row_json, row_lines
from tests.support.result_rows import error_row, ok_row
from tests.support.strange_rows import rows_of_every_kind


def batch_of(rows: Sequence[ResultRow]) -> pa.RecordBatch:
    (batch,) = to_table(rows).combine_chunks().to_batches()
    return batch


def line(row: ResultRow) -> str:
    return escape_line_ends(orjson.dumps(row_json(row))).decode() + "\n"


def test_lines_of_a_batch_are_those_of_its_rows() -> None:
    rows = rows_of_every_kind()
    assert row_lines(batch_of(rows)).to_pylist() == [line(row) for row in rows]


@pytest.mark.parametrize("number", range(len(rows_of_every_kind())))
def test_a_row_alone_is_the_same_line(number: int) -> None:
    rows = rows_of_every_kind()
    alone = batch_of(rows).slice(number, 1).select(COLUMNS)
    assert row_lines(alone).to_pylist() == [line(rows[number])]


def test_no_character_but_the_last_ends_a_line() -> None:
    lines = row_lines(batch_of(rows_of_every_kind())).to_pylist()
    assert "".join(lines).splitlines(keepends=True) == lines
    assert [json.loads(text)["row"] for text in lines] == list(range(len(lines)))


texts = some.text(some.characters(exclude_categories=["Cs"]))
rows = some.builds(
    lambda id_, moment, seed, answers: ok_row(
        5, custom_id=id_, created_at=moment, seed=seed, choices=answers, model=id_
    ),
    texts,
    some.integers(0, 1 << 51),
    some.integers(-(1 << 63), (1 << 63) - 1),
    some.lists(
        some.builds(
            lambda text, score, tokens: Choice(
                index=0, text=text, finish_reason="stop", score=score, tokens=tokens
            ),
            texts,
            some.floats(allow_nan=False),
            some.none() | some.lists(some.integers(0, 1 << 30)),
        ),
        max_size=3,
    ),
)


@given(some.lists(rows, min_size=1, max_size=4))
def test_any_rows_are_the_same_lines(found: list[ResultRow]) -> None:
    assert row_lines(batch_of(found)).to_pylist() == [line(row) for row in found]


def test_an_empty_batch_has_no_lines() -> None:
    assert row_lines(batch_of([ok_row(0)]).slice(1)).to_pylist() == []


def test_a_row_as_json() -> None:
    shown = json.loads(line(ok_row(3, "four", extra='{"topic": "numbers"}')))
    assert (shown["row"], shown["custom_id"], shown["response"]) == (3, "row-3", "four")
    assert shown["finish_reason"] == "stop"
    assert shown["extra"] == {"topic": "numbers"}
    assert shown["created_at"] == "2026-09-21T14:13:20.123459+00:00"
    assert shown["usage"]["prompt_tokens"] == 3
    failed = row_json(error_row(4))
    assert (failed["response"], failed["finish_reason"], failed["extra"]) == (None, None, None)
    assert failed["error"]["code"] == "context_length_exceeded"

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.result_table import from_table, to_table
from tests.support.result_rows import CREATED_AT, error_row, ok_row

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
CHOICES = st.builds(
    Choice,
    index=INT32,
    text=TEXT,
    finish_reason=st.sampled_from(["stop", "length"]),
    score=st.none() | st.floats(allow_nan=False),
    tokens=st.none() | st.lists(INT32, max_size=4),
    logprobs=st.none() | TEXT,
)
USAGE = st.builds(Usage, prompt_tokens=INT32, completion_tokens=INT32, cached_tokens=INT32)
ERRORS = st.builds(RowError, code=TEXT, message=TEXT, param=st.none() | TEXT)
ROWS = st.builds(
    ResultRow,
    row=st.integers(0, 2**63 - 1),
    custom_id=TEXT,
    model=TEXT,
    choices=st.lists(CHOICES, max_size=3),
    usage=st.none() | USAGE,
    error=st.none() | ERRORS,
    request_id=TEXT,
    attempt=INT32,
    seed=st.none() | INT64,
    created_at=st.integers(0, 2**52),
    latency_ms=st.integers(0, 2**62),
    extra=st.none() | TEXT,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(ROWS, max_size=4))
def test_a_round_trip_changes_nothing(rows: list[ResultRow]) -> None:
    table = to_table(rows)
    assert table.schema.equals(SCHEMA)
    assert from_table(table) == rows


def test_response_and_finish_reason_are_those_of_the_first_choice() -> None:
    choices = [
        Choice(index=1, text="best", finish_reason="length"),
        Choice(index=0, text="second", finish_reason="stop"),
    ]
    (line,) = to_table([ok_row(0, choices=choices)]).to_pylist()
    assert (line["response"], line["finish_reason"]) == ("best", "length")
    assert [choice["text"] for choice in line["choices"]] == ["best", "second"]


def test_an_empty_answer_is_not_null() -> None:
    empty = [Choice(index=0, text="", finish_reason="stop")]
    (line,) = to_table([ok_row(0, choices=empty)]).to_pylist()
    assert line["response"] == ""


@pytest.mark.parametrize("column", ["response", "finish_reason", "usage"])
def test_an_error_row_has_no_answer(column: str) -> None:
    (line,) = to_table([error_row(3)]).to_pylist()
    assert line[column] is None
    assert line["choices"] == []
    assert line["error"] == {
        "code": "context_length_exceeded",
        "message": "row 3 is too long",
        "param": "messages",
    }


def test_a_partly_answered_row_that_failed_has_no_response() -> None:
    row = ok_row(0, error=RowError(code="poison", message="it died"))
    (line,) = to_table([row]).to_pylist()
    assert line["response"] is None


def test_created_at_is_utc_to_the_microsecond() -> None:
    moment: Any = to_table([ok_row(0)])["created_at"][0].as_py()
    assert moment.utcoffset().total_seconds() == 0
    assert moment.microsecond == CREATED_AT % 1_000_000


def test_no_rows_give_an_empty_table() -> None:
    assert to_table([]).num_rows == 0
    assert from_table(to_table([])) == []

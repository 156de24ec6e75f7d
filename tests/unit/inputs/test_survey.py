from __future__ import annotations

import io
import json

import pytest

from batchgen.errors import BadLines, EmptyInput, InvalidInput
from batchgen.inputs.record_file import CHUNK_BYTES, MAX_RECORD_BYTES, RecordFile, RecordReader
from batchgen.inputs.survey import MAX_PROBLEMS, OnInvalid, Survey
from batchgen.requests.lines import LineParser
from batchgen.requests.values.strict_json import MAX_LINE_BYTES


def survey(data: bytes) -> Survey:
    index = io.BytesIO()
    result = Survey(LineParser({}, "m"), io.BytesIO())
    result.read(RecordReader(io.BytesIO(data), index=index))
    result.compare_ids(RecordFile(io.BytesIO(data), index))
    return result


def rows(*lines: object) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def problems(result: Survey) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in result.problems]


def test_lines_are_counted_as_editors_do() -> None:
    result = survey(rows({"prompt": "x"}, {"prompt": 5}, {"prompt": "x"}) + b"\n{")
    assert result.n_rows == 5
    assert problems(result) == [(2, "invalid_type"), (4, "blank_line"), (5, "invalid_json")]
    assert (result.n_bad, result.n_unusable) == (3, 3)
    assert result.problems[0].param == "prompt"


def test_no_row_at_all() -> None:
    with pytest.raises(EmptyInput):
        survey(b"")


def test_a_repeated_id_names_both_lines() -> None:
    result = survey(rows(*({"prompt": "x", "id": name} for name in "abcab")))
    assert problems(result) == [(4, "duplicate_custom_id"), (5, "duplicate_custom_id")]
    assert result.problems[0].message == "The id 'a' is already that of line 1."
    assert (result.n_bad, result.n_unusable) == (0, 2)


@pytest.mark.parametrize(
    ("ids", "line", "first"), [(["row-2", "a", None], 3, 1), ([None, "a", "row-0"], 3, 1)]
)
def test_an_id_that_another_line_gets_for_want_of_one(
    ids: list[str | None], line: int, first: int
) -> None:
    result = survey(rows(*({"prompt": "x", "id": name} for name in ids)))
    [problem] = result.problems
    assert (problem.line, problem.code) == (line, "duplicate_custom_id")
    assert f"line {first}" in problem.message
    assert "row-<n>" in problem.message


def test_a_line_may_be_called_by_its_own_number() -> None:
    result = survey(rows({"prompt": "x", "id": "row-0"}, {"prompt": "x"}))
    assert result.problems == []


def test_a_line_both_bad_and_repeated_counts_once() -> None:
    result = survey(rows({"prompt": "x", "id": "a"}, {"prompt": 5, "id": "a"}))
    assert [line for line, _ in problems(result)] == [2, 2]
    assert (result.n_bad, result.n_unusable) == (1, 1)


def test_many_problems_are_counted_and_the_first_described() -> None:
    result = survey(rows({"prompt": "x", "id": "a"}) * 1_500 + b"[]\n" * 1_500)
    assert result.n_unusable == 2_999
    assert len(result.problems) == MAX_PROBLEMS
    assert [problem.line for problem in result.problems] == list(range(2, 1_002))


@pytest.mark.parametrize(
    ("lines", "policy", "total"),
    [
        ([{"prompt": 5}], OnInvalid.REFUSE, 1),
        ([{"prompt": 5}], OnInvalid.ROW_ERROR, 0),
        ([{"prompt": "x"}], OnInvalid.REFUSE, 0),
        ([{"prompt": "x", "id": "a"}] * 2 + [{}], OnInvalid.REFUSE, 2),
        ([{"prompt": "x", "id": "a"}] * 2 + [{}], OnInvalid.ROW_ERROR, 1),
        ([{"prompt": 5, "id": "a"}] * 2, OnInvalid.ROW_ERROR, 1),
    ],
)
def test_what_refuses_an_input(lines: list[object], policy: OnInvalid, total: int) -> None:
    result = survey(rows(*lines))
    if not total:
        result.refuse(policy)
        return
    with pytest.raises(BadLines) as caught:
        result.refuse(policy)
    assert caught.value.total == total


def test_the_remedy_fits_the_problem() -> None:
    repeated = survey(rows({"prompt": "x", "id": "a"}) * 2)
    with pytest.raises(BadLines, match="id of its own") as caught:
        repeated.refuse(OnInvalid.REFUSE)
    assert "row-error" not in caught.value.message
    with pytest.raises(BadLines, match="on_invalid is row-error"):
        survey(b"{").refuse(OnInvalid.REFUSE)


def test_blank_lines_at_the_end_are_no_rows() -> None:
    result = survey(rows({"prompt": "x"}, {"prompt": "y"}) + b"\n \t\r\n\n")
    assert (result.n_rows, result.problems) == (2, [])
    with pytest.raises(EmptyInput):
        survey(b"\n\r\n  \n")


def test_blank_lines_between_others_are_rows_with_their_own_number() -> None:
    n_blank = 2 * CHUNK_BYTES + 3  # over several chunks
    result = survey(rows({"prompt": "x"}) + b"\n" * n_blank + rows({"prompt": 5}))
    assert (result.n_rows, result.n_bad) == (n_blank + 2, n_blank + 1)
    assert problems(result)[:2] == [(2, "blank_line"), (3, "blank_line")]


@pytest.mark.parametrize("policy", OnInvalid)
def test_an_input_that_goes_on_behind_its_last_row_is_refused(policy: OnInvalid) -> None:
    longest = MAX_LINE_BYTES if policy is OnInvalid.REFUSE else MAX_RECORD_BYTES
    data = rows({"prompt": "x"}) + b"{" * (longest + 1) + b"\n{}\n"
    index = io.BytesIO()
    result = Survey(LineParser({}, "m"), io.BytesIO())
    result.read(RecordReader(io.BytesIO(data), index=index, longest=longest))
    assert (result.n_rows, result.ended_early) == (2, True)
    assert problems(result) == [(2, "line_too_long")]
    with pytest.raises(InvalidInput, match=r"[Ll]ine 2"):
        result.refuse(policy)


def test_one_mistake_in_many_lines_is_one_message() -> None:
    result = survey(rows(*({"prompt": "x", "max_tokns": 5} for _ in range(30)), {"prompt": 5}))
    with pytest.raises(BadLines) as caught:
        result.refuse(OnInvalid.REFUSE)
    head, misspelt, mistyped, _ = caught.value.message.splitlines()
    assert head == "31 lines are not usable:"
    assert "line 1: 'max_tokns'" in misspelt
    assert misspelt.endswith("(and 29 more lines alike)")
    assert "line 31: 'prompt' must be a text" in mistyped
    assert "alike" not in mistyped
    assert len(caught.value.problems) == caught.value.total == 31

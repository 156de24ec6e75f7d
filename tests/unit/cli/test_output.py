from __future__ import annotations

import json
import re

import pytest

from batchgen.errors import BadLines, JobNotFound, LineProblem, OutputConflict
from batchgen_cli.output import Column, Format, Output

COLUMNS = (
    Column(title="NAME", value=lambda row: row["name"]),
    Column(title="N", value=lambda row: str(row["n"]), right=True),
)
ROWS = [{"name": "a" * 120, "n": 1}, {"name": "[b]", "n": 20}]


def table(output: Output, rows: list[dict[str, object]]) -> None:
    output.table(rows, COLUMNS, quiet=lambda row: row["name"], json=dict, empty="Nothing here")


def test_a_table_is_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table(Output(), ROWS)
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "N"]
    assert first.split() == ["a" * 120, "1"]
    assert second.split() == ["[b]", "20"]


def test_a_table_as_json_and_as_names(capsys: pytest.CaptureFixture[str]) -> None:
    table(Output(format=Format.JSON), ROWS)
    assert json.loads(capsys.readouterr().out) == ROWS
    table(Output(format=Format.QUIET), ROWS)
    assert capsys.readouterr().out.splitlines() == ["a" * 120, "[b]"]


@pytest.mark.parametrize(
    ("form", "out", "err"),
    [(Format.HUMAN, "", "Nothing here\n"), (Format.JSON, "[]\n", ""), (Format.QUIET, "", "")],
)
def test_an_empty_table(
    capsys: pytest.CaptureFixture[str], form: Format, out: str, err: str
) -> None:
    table(Output(format=form), [])
    assert capsys.readouterr() == (out, err)


def test_notes_are_for_people_and_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for form in Format:
        Output(format=form).note("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_errors_are_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(JobNotFound("No job 12."))
    assert capsys.readouterr() == ("", "Error: No job 12.\n")
    Output(format=Format.JSON).error(JobNotFound("No job 12."))
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {"type": "JobNotFound", "message": "No job 12.", "exit_code": 4}
    }


def test_an_error_may_name_an_option_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(JobNotFound("No job 12."), hint="--all lists more.")
    assert capsys.readouterr().err == "Error: No job 12.\nHint: --all lists more.\n"
    Output(format=Format.JSON).error(JobNotFound("No job 12."), hint="--all lists more.")
    assert json.loads(capsys.readouterr().err)["error"]["hint"] == "--all lists more."


def test_errors_of_python_name_no_option_of_the_command() -> None:
    problem = LineProblem(line=3, code="invalid_json", message="It is no JSON.")
    for error in (OutputConflict(), BadLines([problem], 1)):
        assert not re.search(r"(^| )--?[a-z]", error.message)


def test_a_record_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for form in Format:
        Output(format=form).record({"id": 1}, quiet="one", human=lambda: "the one")
    human, *document, quiet = capsys.readouterr().out.splitlines()
    assert (human, quiet) == ("the one", "one")
    assert json.loads("".join(document)) == {"id": 1}

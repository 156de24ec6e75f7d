from __future__ import annotations

import json

import pytest

from tests.support.homes import prompts
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")
BAD = prompts(2) + b'{oops\n{"prompt": 3}\n'


@pytest.mark.home
def test_a_good_file(batchgen: Command) -> None:
    result = batchgen.ok("validate", batchgen.file("p.jsonl", prompts(3)))
    assert result.stdout == ""
    assert "3 rows, all usable" in result.stderr


@pytest.mark.home
def test_every_bad_line_is_named(batchgen: Command) -> None:
    result = batchgen("validate", batchgen.file("p.jsonl", BAD))
    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["line 3", "line 4"]


@pytest.mark.home
def test_as_json(batchgen: Command) -> None:
    result = batchgen("validate", batchgen.file("p.jsonl", BAD), "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["rows"], report["bad"]) == (2, False, 4, 2)
    assert [problem["line"] for problem in report["problems"]] == [3, 4]


@pytest.mark.home
def test_as_line_numbers(batchgen: Command) -> None:
    assert batchgen("validate", batchgen.file("p.jsonl", BAD), "-q").stdout == "3\n4\n"


@pytest.mark.home
def test_standard_input(batchgen: Command) -> None:
    assert batchgen("validate", "-", stdin=BAD).exit_code == 2


@pytest.mark.home
@pytest.mark.parametrize(("content", "args"), [(b"", ()), (prompts(2), ("-p", "temperature=9"))])
def test_what_cannot_be_checked_is_code_2(
    batchgen: Command, content: bytes, args: tuple[str, ...]
) -> None:
    result = batchgen("validate", batchgen.file("p.jsonl", content), *args)
    assert (result.exit_code, result.stdout) == (2, "")


def test_answers_must_fit_a_model_that_is_there(batchgen: Command) -> None:
    file = batchgen.file("p.jsonl", b'{"prompt": "x", "max_tokens": 256}\n')
    batchgen.ok("validate", file)
    batchgen.ok("validate", file, "--model", "elsewhere")
    result = batchgen("validate", file, "--model", "tiny")
    assert result.exit_code == 2
    assert "maximum context length is 256 tokens" in result.stdout
    good = batchgen.file("q.jsonl", prompts(1))
    assert batchgen("validate", good, "-m", "tiny", "-p", "max_tokens=256").exit_code == 2


@pytest.mark.home
def test_stores_nothing(batchgen: Command) -> None:
    before = sorted(batchgen.home.rglob("*"))
    batchgen.ok("validate", batchgen.file("p.jsonl", prompts(3)))
    assert sorted(batchgen.home.rglob("*")) == before


def test_a_misspelt_model_is_not_taken_for_one_elsewhere(batchgen: Command) -> None:
    result = batchgen("validate", batchgen.file("p.jsonl", prompts(1)), "--model", "Tiny")
    assert result.exit_code == 4
    assert "Did you mean tiny?" in result.stderr


@pytest.mark.home
def test_a_line_with_two_mistakes_is_one_bad_line(batchgen: Command) -> None:
    lines = b'{"prompt": "x", "id": "a"}\n' + b'{"prompt": 5, "id": "a"}\n' * 1_200
    result = batchgen("validate", batchgen.file("p.jsonl", lines))
    # Of 2,400 problems the first 1,000 are listed: those of 500 lines.
    assert result.stderr.splitlines()[-2:] == [
        "… and 700 more",
        f"{batchgen.folder / 'p.jsonl'}: 1,201 rows, 1,200 bad",
    ]
    few = batchgen("validate", batchgen.file("q.jsonl", lines[: lines.index(b"\n", 40) + 1]))
    assert "more" not in few.stderr
    assert "2 rows, 1 bad" in few.stderr
    refused = batchgen("submit", batchgen.folder / "p.jsonl", "-m", "tiny")
    assert "1200 lines are not usable" in refused.stderr
    assert "line 2: 'prompt' must be a text" in refused.stderr
    assert refused.stderr.count("(and 499 more lines alike)") == 2
    assert "… and 700 more" in refused.stderr


@pytest.mark.home
def test_what_follows_a_line_that_is_too_long_is_not_read(batchgen: Command) -> None:
    file = batchgen.file("p.jsonl", prompts(1) + b"x" * (1 << 21) + b"\n{oops\n")
    result = batchgen("validate", file)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["line 2"]
    assert "Line 2 is too long: what follows was not read." in result.stderr
    assert json.loads(batchgen("validate", file, "--json").stdout)["ended_early"] is True

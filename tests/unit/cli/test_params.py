from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from batchgen_cli.options import param_option
from batchgen_cli.params import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["a", "b"]', ["a", "b"]),
        ('"quoted"', "quoted"),
        ("plain", "plain"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_json_where_it_parses(text: str, value: Any) -> None:
    assert parse_value(text) == value


@click.command()
@param_option
def show(params: dict[str, Any]) -> None:
    """Print what was understood."""
    click.echo(repr(params))


def test_pairs_become_a_dict_in_order() -> None:
    result = CliRunner().invoke(show, ["-p", "stop=a=b", "--param", " top_k =5"])
    assert result.output == "{'stop': 'a=b', 'top_k': 5}\n"


def test_a_value_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}\n')
    (tmp_path / "regex").write_text("[a-z]+\n")
    words = [f"json_schema=@{tmp_path}/schema.json", f"regex=@{tmp_path}/regex"]
    result = CliRunner().invoke(show, ["-p", words[0], "-p", words[1], "-p", "stop=@"])
    assert result.output == (
        "{'json_schema': {'type': 'object'}, 'regex': '[a-z]+', 'stop': '@'}\n"
    )


def test_a_text_may_begin_with_the_sign_of_a_file() -> None:
    result = CliRunner().invoke(show, ["-p", "stop=@@user", "-p", 'regex="@x"', "-p", "a=x@y"])
    assert result.output == "{'stop': '@user', 'regex': '@x', 'a': 'x@y'}\n"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"\xff", "it is not UTF-8")]
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(show, ["-p", f"json_schema=@{path}"])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"the file {path} of 'json_schema=@{path}' cannot be read: {reason}" in said
    assert f"json_schema=@@{path} is the text itself" in said


@pytest.mark.parametrize("word", ["temperature", "=1", ""])
def test_what_is_no_pair_is_a_usage_error(word: str) -> None:
    result = CliRunner().invoke(show, ["-p", word])
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.output

from __future__ import annotations

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


@pytest.mark.parametrize("word", ["temperature", "=1", ""])
def test_what_is_no_pair_is_a_usage_error(word: str) -> None:
    result = CliRunner().invoke(show, ["-p", word])
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.output

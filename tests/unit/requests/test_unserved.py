from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.fields import (
    ALIASES,
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    SAMPLING,
    read_sampling,
)
from batchgen.requests.shorthand import read_shorthand_line
from batchgen.requests.unserved import UNSERVED
from batchgen.requests.values.line_error import LineError
from tests.support.repository import ROOT

NEUTRAL: dict[str, Any] = {
    "echo": False,
    "suffix": "",
    "modalities": ["text"],
    "include_stop_str_in_output": False,
    "skip_special_tokens": True,
    "no_repeat_ngram_size": 0,
    "guidance_scale": 1,
    "stream": False,
}


@pytest.mark.parametrize("name", UNSERVED)
def test_a_shorthand_line_and_a_body_refuse_it_by_name(name: str) -> None:
    value = {"anything": "else"}
    with pytest.raises(LineError) as caught:
        read_shorthand_line({"prompt": "x", name: value})
    assert caught.value.error.param == name
    assert f"'{name}'" in caught.value.error.message
    assert "--columns" in caught.value.error.message
    for fields in (CHAT_FIELDS, COMPLETION_FIELDS):
        with pytest.raises(LineError, match=f"'{name}'") as in_body:
            read_sampling({name: value}, fields)
        assert "--columns" not in in_body.value.error.message


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_that_changes_nothing_is_accepted_and_no_column(name: str) -> None:
    question = read_shorthand_line({"prompt": "x", name: NEUTRAL[name]})
    assert (question.params, question.extra) == ({}, {})


@pytest.mark.parametrize(("name", "value"), [("echo", 0), ("skip_special_tokens", 1)])
def test_a_number_is_no_flag(name: str, value: int) -> None:
    with pytest.raises(LineError):
        read_shorthand_line({"prompt": "x", name: value})


def test_nothing_is_both_served_and_not() -> None:
    assert UNSERVED.keys().isdisjoint(SAMPLING.keys() | ALIASES.keys())


def test_every_one_is_documented() -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert [name for name in UNSERVED if f"`{name}`" not in page] == []

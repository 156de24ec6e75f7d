from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import InvalidParameter
from batchgen.requests.expected import EXPECTS
from batchgen.requests.lines import LineParser, check_defaults
from batchgen.requests.plain_lines import PlainLines

CHAT = "/v1/chat/completions"
EXPECTED = {EXPECTS: {"url": CHAT, "model": "tiny"}}


def line(url: str = CHAT, **body: Any) -> bytes:
    asked = {"messages": [{"role": "user", "content": "a"}], **body}
    if url != CHAT:
        asked = {"prompt": "a", **body}
    return json.dumps({"custom_id": "x", "method": "POST", "url": url, "body": asked}).encode()


def parse(raw: bytes, defaults: dict[str, Any] = EXPECTED) -> InputRow | BadRow:
    parser = LineParser(defaults, "tiny")
    row = parser.parse(raw, 0)
    # The fast path takes a line only if the parser accepts it.
    assert PlainLines(parser).id_of(raw, 0) is None or isinstance(row, InputRow)
    return row


@pytest.mark.parametrize("body", [{}, {"model": "tiny"}, {"model": "tiny", "max_tokens": 3}])
def test_a_line_for_the_endpoint_and_the_model_is_good(body: dict[str, Any]) -> None:
    raw = line(**body)
    assert isinstance(parse(raw), InputRow)
    assert PlainLines(LineParser(EXPECTED, "tiny")).id_of(raw, 0) == "x"


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (line("/v1/completions"), "invalid_url", "url"),
        (b'{"prompt": "a"}', "invalid_url", "url"),
        (
            b'{"messages": [{"role": "user", "content": "a"}], "custom_id": "x"}',
            "invalid_url",
            "url",
        ),
        (line(model="other"), "mismatched_model", "model"),
    ],
)
def test_a_line_for_something_else_is_bad(raw: bytes, code: str, param: str) -> None:
    row = parse(raw)
    assert isinstance(row, BadRow)
    assert (row.error.code, row.error.param) == (code, param)


def test_any_model_may_be_named_where_none_is_expected() -> None:
    row = parse(line(model="other"), {EXPECTS: {"url": CHAT}})
    assert isinstance(row, InputRow)
    assert row.other_model == "other"


@pytest.mark.parametrize("value", ["a", {"uri": CHAT}, 3])
def test_a_user_cannot_set_it_to_anything(value: object) -> None:
    with pytest.raises(InvalidParameter, match="expects"):
        LineParser({EXPECTS: value})


def test_it_is_no_decoding_parameter() -> None:
    assert check_defaults(EXPECTED) == check_defaults({})

from __future__ import annotations

import json

import orjson

from batchgen.dataset.json_lines import escape_line_ends

# Every character that ends a line for somebody, and neighbours of their bytes.
ENDINGS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
OTHERS = "\x7f\xc2\u0084\u0086\u2027\u202a\xe2 Ę 🙂 \\u2028"


def test_a_line_is_one_whoever_splits_it() -> None:
    value = {ENDINGS: [f"a{ending}b" for ending in ENDINGS], "others": OTHERS}
    line = escape_line_ends(orjson.dumps(value))
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == value


def test_other_text_is_left_as_it_is() -> None:
    text = orjson.dumps({"others": OTHERS})
    assert escape_line_ends(text) == text

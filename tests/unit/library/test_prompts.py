from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from batchgen.errors import InvalidInput, MissingInput
from batchgen.library.prompts import open_prompts

N_ROWS = 2_500  # more than become Python objects at a time
ROWS = [{"id": f"q{row}", "prompt": f"größer\u2028als {row}?", "n": 1} for row in range(N_ROWS)]
CHAT = [{"role": "user", "content": "Hello"}]


def lines(prompts: Any) -> list[Any]:
    """Return what the lines of some prompts say."""
    with open_prompts(prompts) as file:
        return [json.loads(line) for line in file]


def frame_of_objects() -> pd.DataFrame:
    """Return a frame as pandas reads it from Parquet: chats in arrays, empty cells of any kind."""
    messages = np.array(CHAT, dtype=object)
    cells = {"messages": [messages, messages], "at": [pd.NaT, pd.NaT], "max_tokens": [4, None]}
    return pd.DataFrame(cells, index=[7, 9])


@pytest.mark.parametrize(
    "prompts",
    [
        ROWS,
        iter(ROWS),
        pd.DataFrame(ROWS),
        polars.DataFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).to_reader(max_chunksize=700),
    ],
    ids=["list", "iterator", "pandas", "polars", "arrow", "reader"],
)
def test_every_kind_gives_the_same_rows(prompts: Any) -> None:
    assert lines(prompts) == ROWS


def test_a_query_is_prompts() -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT 'row ' || range AS prompt FROM range(3)")
        assert lines(relation) == [{"prompt": f"row {row}"} for row in range(3)]


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"} \n\n')
    for prompts in (path, str(path), io.BytesIO(path.read_bytes())):
        with open_prompts(prompts) as file:
            assert file.read() == path.read_bytes()


def test_cells_of_a_frame_may_be_empty_or_objects() -> None:
    chat = {"messages": CHAT, "at": None}
    assert lines(frame_of_objects()) == [{**chat, "max_tokens": 4}, {**chat, "max_tokens": None}]


def test_what_is_not_quite_json_is_written_as_json() -> None:
    row = {"prompt": "a", "logit_bias": {50: -1}, "stop": ("x",), "top_p": np.float32(0.5)}
    row |= {"score": float("nan")}
    assert lines([row]) == [
        {"prompt": "a", "logit_bias": {"50": -1}, "stop": ["x"], "top_p": 0.5, "score": None}
    ]


def test_rows_are_made_as_they_are_read() -> None:
    made: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        while True:
            made.append(0)
            yield {"prompt": "x" * 100}

    with open_prompts(rows()) as file:
        file.read(250)
    assert len(made) == 3


@pytest.mark.parametrize("size", [4_099, 1 << 20])
def test_a_row_of_any_length_arrives_whole(size: int) -> None:
    rows = [{"prompt": "x" * length} for length in (0, 1 << 18, 3)]
    with open_prompts(rows) as file:
        chunks = list(iter(lambda: file.read(size), b""))
    assert [json.loads(line) for line in b"".join(chunks).splitlines()] == rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a secret", "Row 1 is a str"),
        ({"prompt": b"a secret"}, "Row 1 cannot be written as JSON"),
        ({"prompt": "a secret \ud800"}, "Row 1 cannot be written as JSON"),
        ({"prompt": "a secret", "n": 1 << 70}, "Row 1 cannot be written as JSON"),
    ],
)
def test_a_row_that_is_none_is_named_and_not_quoted(row: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        lines([{"prompt": "fine"}, row])
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("prompts", "remedy"),
    [
        ({"prompt": "a"}, "list or another iterable of dicts"),
        (b"a", "list or another iterable of dicts"),
        (7, "list or another iterable of dicts"),
        (polars.Series(["a"]), "Give a table"),
        (pd.Series(["a"]), "Give a table|Give a dict"),
        (io.StringIO("{}"), "mode 'rb'"),
    ],
)
def test_what_holds_no_prompts_is_refused(prompts: Any, remedy: str) -> None:
    with pytest.raises(InvalidInput, match=remedy):
        lines(prompts)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.jsonl"):
        with pytest.raises(MissingInput, match=f"{path} cannot be read"):
            lines(path)

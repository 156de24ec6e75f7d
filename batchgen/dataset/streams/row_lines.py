"""Rows of a dataset as JSON objects: one row, or the JSON Lines of a whole record batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from batchgen.dataset.streams import json_columns as texts
from batchgen.dataset.streams.template import Template, value

#: The columns that JSON is made of: `response` and `finish_reason` are those of the first choice.
COLUMNS: Final = (
    *("row", "custom_id", "choices", "model", "usage", "error", "request_id"),
    *("attempt", "seed", "created_at", "latency_ms", "extra"),
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def row_json(row: ResultRow) -> dict[str, Any]:
    """Return a row as values for orjson: the columns of the dataset, `extra` as an object."""
    first = row.choices[0] if row.choices else None
    moment = EPOCH + timedelta(microseconds=row.created_at)
    values: dict[str, Any] = msgspec.to_builtins(row)
    return {
        "row": row.row,
        "custom_id": row.custom_id,
        "response": first.text if first else None,
        "finish_reason": first.finish_reason if first else None,
        **values,
        "created_at": moment.isoformat(timespec="microseconds"),
        "extra": orjson.Fragment(row.extra) if row.extra else None,
    }


def row_lines(batch: pa.RecordBatch) -> pa.Array:
    """Return the line of each row of a batch that has `COLUMNS`, with its line feed.

    The line is `row_json` as orjson writes it, with all characters escaped that may end a line.
    """
    choices = batch["choices"].flatten()
    answers = texts.quoted(pc.struct_field(choices, "text"))
    reasons = texts.quoted(pc.struct_field(choices, "finish_reason"))
    columns = {
        **{name: texts.numbers(batch[name]) for name in _NUMBERS},
        **{name: texts.quoted(batch[name]) for name in _TEXTS},
        "response": texts.firsts(batch["choices"], answers).fill_null(texts.NULL),
        "finish_reason": texts.firsts(batch["choices"], reasons).fill_null(texts.NULL),
        "choices": texts.arrays(batch["choices"], lambda _: _choices(choices, answers, reasons)),
        "usage": _usages(batch["usage"]),
        "error": _errors(batch["error"]),
        "created_at": texts.moments(batch["created_at"]),
        "extra": texts.line_ends_escaped(batch["extra"]).fill_null(texts.NULL),
    }
    return _templates()["row"].fill(columns, end="\n")


_NUMBERS: Final = ("row", "attempt", "seed", "latency_ms")
_TEXTS: Final = ("custom_id", "model", "request_id")


def _choices(choices: pa.Array, answers: pa.Array, reasons: pa.Array) -> pa.Array:
    tokens = pc.struct_field(choices, "tokens")
    columns = {
        "index": texts.numbers(pc.struct_field(choices, "index")),
        "text": answers,
        "finish_reason": reasons,
        "score": texts.floats(pc.struct_field(choices, "score")),
        "tokens": texts.arrays(tokens, texts.numbers),
        "logprobs": texts.quoted(pc.struct_field(choices, "logprobs")),
    }
    return _templates()["choice"].fill(columns)


def _usages(usages: pa.Array) -> pa.Array:
    columns = {
        name: texts.numbers(pc.struct_field(usages, name)) for name in Usage.__struct_fields__
    }
    return pc.if_else(usages.is_valid(), _templates()["usage"].fill(columns), texts.NULL)


def _errors(errors: pa.Array) -> pa.Array:
    columns = {
        name: texts.quoted(pc.struct_field(errors, name)) for name in RowError.__struct_fields__
    }
    return pc.if_else(errors.is_valid(), _templates()["error"].fill(columns), texts.NULL)


@cache
def _templates() -> dict[str, Template]:
    error = RowError(code="", message="")
    choice = Choice(index=0, text="", finish_reason="stop")
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    row = row_json(ResultRow(row=0, custom_id="", model="", request_id="", attempt=1, created_at=0))
    examples = {"choice": choice, "usage": usage, "error": error}
    fields = {name: msgspec.to_builtins(example) for name, example in examples.items()}
    return {
        name: Template({field: value(field) for field in example})
        for name, example in {"row": row, **fields}.items()
    }

"""Lines of OpenAI's output and error files for the rows of a whole record batch.

Most rows are plain: chats and completions that ask for neither log-probabilities nor token ids.
Their lines are filled into templates that `openai_line` gives; all other lines it writes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchgen.core.endpoints import CHAT, COMPLETIONS
from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from batchgen.dataset.json_lines import escape_line_ends
from batchgen.dataset.openai_output import NOT_ASKED, SERVICE_FAILURES, openai_line
from batchgen.dataset.result_table import from_table
from batchgen.dataset.streams import json_columns as texts
from batchgen.dataset.streams.template import Template, part, value

#: The columns that the lines are made of.
COLUMNS: Final = (
    *("row", "custom_id", "choices", "model", "usage", "error", "request_id"),
    *("attempt", "created_at"),
)
Columns = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of a batch's rows, as far as their answers depend on them."""

    endpoints: pa.Array
    # the fields that an answer repeats; None where none does
    echoes: Sequence[Mapping[str, Any] | None] | None = None

    def take(self, places: pa.Array) -> Requests:
        """Return the requests at these places."""
        echoes = self.echoes and [self.echoes[place] for place in places.to_pylist()]
        return Requests(endpoints=self.endpoints.take(places), echoes=echoes)


def openai_lines(batch: pa.RecordBatch, requests: Requests) -> pa.Array:
    """Return the line of each row of a batch that has `COLUMNS`, with its line feed.

    Errors are those of `openai_line`.
    """
    kinds = _kinds(batch, requests.endpoints)
    lines, places = [], []
    for kind in pc.unique(kinds).to_pylist():
        place = pc.indices_nonzero(pc.equal(kinds, kind))
        rows = batch if len(place) == len(batch) else batch.take(place)
        lines.append(_lines(rows, kind, requests.take(place)))
        places.append(place)
    if len(lines) == 1:
        return lines[0]
    order = pc.sort_indices(pa.concat_arrays(places))
    return pa.concat_arrays(lines).take(order)


def _kinds(batch: pa.RecordBatch, endpoints: pa.Array) -> pa.Array:
    """Return the name of the template of each row, an endpoint or an error; "" where none fits."""
    code = pc.struct_field(batch["error"], "code")
    failed = pc.if_else(
        pc.is_in(code, pa.array(sorted(NOT_ASKED))),
        _NOT_ASKED,
        pc.if_else(pc.is_in(code, pa.array(sorted(SERVICE_FAILURES))), _OURS, _THEIRS),
    )
    served = pc.is_in(endpoints, pa.array([CHAT, COMPLETIONS]))
    answered = pc.if_else(pc.and_(served, _plain(batch["choices"])), endpoints, "")
    kinds = pc.if_else(batch["error"].is_valid(), failed, answered)
    return pc.if_else(served, kinds, "")


_NOT_ASKED: Final = "not asked"
_OURS: Final = "server error"
_THEIRS: Final = "invalid request"


def _plain(lists: pa.ListArray) -> pa.Array:
    """Return whether no choice of a row has log-probabilities or token ids."""
    choices = lists.flatten()
    asked = pc.or_(
        pc.struct_field(choices, "logprobs").is_valid(),
        pc.struct_field(choices, "tokens").is_valid(),
    )
    rows = pc.list_parent_indices(lists).filter(asked)
    return pc.invert(pc.is_in(pa.array(range(len(lists)), rows.type), rows))


def _lines(batch: pa.RecordBatch, kind: str, requests: Requests) -> pa.Array:
    if not kind:
        return pa.array(list(_row_by_row(batch, requests)), pa.string())
    columns = {
        "unique": texts.escaped(pc.replace_substring_regex(batch["request_id"], "^req_", "")),
        "request_id": texts.escaped(batch["request_id"]),
        "custom_id": texts.escaped(batch["custom_id"]),
        **(_answers(batch, kind) if kind in (CHAT, COMPLETIONS) else _failures(batch)),
    }
    return _templates()[kind].fill(columns, end="\n")


def _row_by_row(batch: pa.RecordBatch, requests: Requests) -> Iterator[bytes]:
    rows = from_table(pa.Table.from_batches([batch]))
    endpoints = requests.endpoints.to_pylist()
    echoes = requests.echoes or [None] * len(rows)
    for row, endpoint, echo in zip(rows, endpoints, echoes, strict=True):
        line = openai_line(row, endpoint=endpoint, echo=echo)
        yield escape_line_ends(orjson.dumps(line)) + b"\n"


def _answers(batch: pa.RecordBatch, endpoint: str) -> Columns:
    choices = _templates()[f"choice of {endpoint}"]
    return {
        "model": texts.escaped(batch["model"]),
        "created": texts.numbers(pc.divide(batch["created_at"].cast(pa.int64()), 1_000_000)),
        "choices": texts.arrays(batch["choices"], lambda items: choices.fill(_choices(items))),
        "usage": _usages(batch["usage"]),
    }


def _choices(choices: pa.Array) -> Columns:
    return {
        "index": texts.numbers(pc.struct_field(choices, "index")),
        "text": texts.escaped(pc.struct_field(choices, "text")),
        "finish_reason": texts.escaped(pc.struct_field(choices, "finish_reason")),
    }


def _usages(usages: pa.Array) -> pa.Array:
    counts = {name: pc.struct_field(usages, name) for name in Usage.__struct_fields__}
    counts["total_tokens"] = pc.add(counts["prompt_tokens"], counts["completion_tokens"])
    columns = {name: texts.numbers(column) for name, column in counts.items()}
    return pc.if_else(usages.is_valid(), _templates()["usage"].fill(columns), texts.NULL)


def _failures(batch: pa.RecordBatch) -> Columns:
    return {
        "code": texts.escaped(pc.struct_field(batch["error"], "code")),
        "message": texts.escaped(pc.struct_field(batch["error"], "message")),
        "param": texts.quoted(pc.struct_field(batch["error"], "param")),
    }


@cache
def _templates() -> dict[str, Template]:
    codes = {_NOT_ASKED: min(NOT_ASKED), _OURS: min(SERVICE_FAILURES), _THEIRS: "invalid_value"}
    templates = {name: Template(_failed_example(code)) for name, code in codes.items()}
    for endpoint in (CHAT, COMPLETIONS):
        templates |= _answer_templates(endpoint)
    return templates


def _failed_example(code: str) -> dict[str, Any]:
    error = RowError(code=code, message=part("message"), param=value("param"))
    line = openai_line(_example(error=error), endpoint=CHAT)
    if line["response"]:
        line["response"]["request_id"] = part("request_id")
    (line["error"] or line["response"]["body"]["error"])["code"] = part("code")
    return line


def _answer_templates(endpoint: str) -> dict[str, Template]:
    choice = Choice(index=0, text=part("text"), finish_reason="stop")
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    line = openai_line(_example(choices=[choice], usage=usage), endpoint=endpoint)
    line["response"]["request_id"] = part("request_id")
    body = line["response"]["body"]
    (shown,), counts = body["choices"], body["usage"]
    shown |= {"index": value("index"), "finish_reason": part("finish_reason")}
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        counts[name] = value(name)
    counts["prompt_tokens_details"]["cached_tokens"] = value("cached_tokens")
    body |= {"created": value("created"), "choices": value("choices"), "usage": value("usage")}
    return {
        endpoint: Template(line),
        f"choice of {endpoint}": Template(shown),
        "usage": Template(counts),
    }


def _example(**fields: Any) -> ResultRow:
    return ResultRow(
        row=0,
        custom_id=part("custom_id"),
        model=part("model"),
        request_id=f"req_{part('unique')}",
        attempt=1,
        created_at=0,
        **fields,
    )

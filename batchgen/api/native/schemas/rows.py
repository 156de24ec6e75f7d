"""Rows and groups of failed rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from batchgen.api.native.schemas.shape import Shape


class Choice(Shape):
    """One answer of a row."""

    index: int
    text: str
    finish_reason: str
    # beam score, or the log-probability of the tokens
    score: float | None
    # only if the row asked for it
    tokens: list[int] | None
    # OpenAI's JSON as text, only if the row asked for it
    logprobs: str | None


class Usage(Shape):
    """The tokens of one row."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class RowError(Shape):
    """The reason why a row has no answer."""

    code: str
    message: str
    param: str | None


class Row(Shape):
    """A finished row; one of `choices` and `error` is filled."""

    row: int
    custom_id: str
    # of the first choice
    response: str | None
    finish_reason: str | None
    model: str
    choices: list[Choice]
    usage: Usage | None
    error: RowError | None
    request_id: str
    attempt: int
    seed: int | None
    created_at: datetime
    latency_ms: int
    # the other fields of the input line
    extra: dict[str, Any] | None


class RowList(Shape):
    """Rows in input order. A page may hold fewer rows than asked for, and still have a next one."""

    data: list[Row]
    has_more: bool
    # `after` of the next page
    next_after: int | None


class FailedRow(Shape):
    """A row that failed, by its names."""

    row: int
    custom_id: str


class ErrorGroup(Shape):
    """Rows that failed with one code, and with messages that differ in numbers only."""

    # the same for every job
    fingerprint: str
    code: str
    # the message with N in the place of each number
    pattern: str
    # of the first row
    message: str
    param: str | None
    count: int
    # the first ones
    rows: list[FailedRow]


class ErrorGroupList(Shape):
    """Groups of failed rows, the largest first."""

    data: list[ErrorGroup]
    # failed rows in further groups
    others: int

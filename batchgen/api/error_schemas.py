"""The JSON of errors: OpenAI's under /v1, RFC 9457's elsewhere."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

PROBLEM_JSON = "application/problem+json"
RANGES = ("4XX", "5XX")


class OpenAIErrorBody(BaseModel):
    """The error itself, as OpenAI's client reads it."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error as OpenAI's client reads it."""

    error: OpenAIErrorBody


class BadLine(BaseModel):
    """A line of an input that cannot be used."""

    # counts from 1
    line: int
    code: str
    message: str
    param: str | None


class ProblemDetails(BaseModel):
    """An error as RFC 9457 defines it."""

    # a kind of error has no page of its own: about:blank
    type: str = "about:blank"
    # the standard phrase of the status
    title: str
    status: int
    detail: str
    # a word for programs, such as job_not_found
    code: str | None = None
    # the field or parameter that cannot be used
    param: str | None = None
    # that of the header x-request-id
    request_id: str
    # of a job's rows that cannot be used: the first ones, and how many there are
    errors: list[BadLine] | None = None
    total: int | None = None


#: `responses` of the routes under /v1.
OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    statuses: {"model": OpenAIError, "description": "Error"} for statuses in RANGES
}
#: `responses` of all other routes; `openapi.document_of` gives them their media type.
NATIVE_ERRORS: dict[int | str, dict[str, Any]] = {
    statuses: {"model": ProblemDetails, "description": "Problem"} for statuses in RANGES
}

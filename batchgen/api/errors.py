"""Errors become answers: a status, a word for programs and a message, never SQL or a traceback.

raise BatchgenError / ApiError / HTTPException ──► Problem ──► OpenAI's JSON, or RFC 9457's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from batchgen.api.error_schemas import (
    PROBLEM_JSON,
    OpenAIError,
    OpenAIErrorBody,
    ProblemDetails,
)
from batchgen.errors import (
    BadLines,
    BatchgenError,
    BatchNotFound,
    EmptyInput,
    FileNotFound,
    InvalidInput,
    InvalidParameter,
    JobNotFound,
    ModelError,
    NotAllowed,
    QuotaExceeded,
    Unavailable,
    UnknownModel,
    WebhookNotFound,
)
from batchgen_workers.logs import get_logger

RETRY_SECONDS = 5  # after which a client may ask an unavailable service again
INTERNAL = "The server failed. Give the operator the request id of this answer."
NO_ROUTE = (
    "There is no such route. Answers are computed in batches, not at once: /v1 has files, batches "
    "and models (docs/openai.md), and docs/api.md names the routes of /api/v1."
)
UNAVAILABLE = "The service is not available for the moment. Try again."

#: {Pydantic's type of a mistake: what a caller is told of it}, where its own words say too little.
VALIDATIONS: Mapping[str, str] = {
    "extra_forbidden": "There is no parameter {param!r}.",
    "missing": "The parameter {param!r} is needed.",
    "model_attributes_type": "{param!r} must be a JSON object; is Content-Type application/json?",
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as a caller sees it."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # further members of the JSON of RFC 9457
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """OpenAI's type of the error."""
        by_status = {
            401: "authentication_error",
            403: "permission_error",
            429: "rate_limit_error",
        }
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return by_status.get(self.status, kind)


class ApiError(HTTPException):
    """An error that only HTTP has, such as a missing key or a body that is too large."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.problem = Problem(
            status=status, message=message, code=code, param=param, headers=dict(headers or {})
        )


#: The first class that fits an error decides its status and code.
STATUSES: tuple[tuple[type[BatchgenError], int, str], ...] = (
    (JobNotFound, 404, "job_not_found"),
    (FileNotFound, 404, "file_not_found"),
    (BatchNotFound, 404, "batch_not_found"),
    (UnknownModel, 404, "model_not_found"),
    (WebhookNotFound, 404, "webhook_not_found"),
    (NotAllowed, 409, "not_allowed"),
    (QuotaExceeded, 429, "quota_exceeded"),
    (BadLines, 400, "bad_lines"),
    (EmptyInput, 400, "empty_input"),
    (InvalidInput, 400, "invalid_input"),
    (InvalidParameter, 400, "invalid_parameter"),
    (ModelError, 400, "unusable_model"),
)


def problem_of(error: Exception) -> Problem:
    """Return what a caller is told of an error; of one that is not theirs, nothing but that."""
    if isinstance(error, ApiError):
        return error.problem
    if isinstance(error, HTTPException):
        return _of_status(error)
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    for kind, status, code in STATUSES:
        if isinstance(error, kind):
            param = getattr(error, "param", None)
            # OpenAI's client repeats these by itself, and gets the same answer each time
            headers = {"x-should-retry": "false"} if status in (409, 429) else {}
            return Problem(
                status=status,
                message=error.message,
                code=code,
                param=param,
                headers=headers,
                members=_members(error),
            )
    if isinstance(error, Unavailable):
        headers = {"retry-after": str(RETRY_SECONDS)}
        return Problem(status=503, message=UNAVAILABLE, code="unavailable", headers=headers)
    return Problem(status=500, message=INTERNAL, code="internal_error")


def render(problem: Problem, path: str, request_id: str) -> JSONResponse:
    """Return the answer for a problem, in the shape that callers of this path expect."""
    if path == "/v1" or path.startswith("/v1/"):
        return JSONResponse(
            _openai(problem), status_code=problem.status, headers=dict(problem.headers)
        )
    return JSONResponse(
        _rfc9457(problem, request_id),
        status_code=problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_JSON,
    )


def respond(error: Exception, path: str, request_id: str) -> JSONResponse:
    """Return the answer for an error, and log those that the caller cannot mend."""
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, ApiError):
        log.error("request failed", status=problem.status, exc_info=error)
    return render(problem, path, request_id)


def _members(error: BatchgenError) -> dict[str, Any]:
    if not isinstance(error, BadLines):
        return {}
    return {"errors": [asdict(problem) for problem in error.problems], "total": error.total}


def _openai(problem: Problem) -> dict[str, Any]:
    body = OpenAIErrorBody(
        message=problem.message, type=problem.type, param=problem.param, code=problem.code
    )
    return OpenAIError(error=body).model_dump()


def _rfc9457(problem: Problem, request_id: str) -> dict[str, Any]:
    details = ProblemDetails(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.message,
        code=problem.code,
        param=problem.param,
        request_id=request_id,
    )
    return {**details.model_dump(exclude_none=True), **problem.members}


def _of_status(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return Problem(
        status=error.status_code,
        message=NO_ROUTE if error.status_code == 404 else str(error.detail or phrase),
        code=code,
        headers=error.headers or {},
    )


def _of_validation(error: RequestValidationError) -> Problem:
    """Return the first mistake; the value is not repeated, because it may be a prompt."""
    first = error.errors()[0]
    place, *names = (str(part) for part in first["loc"])
    param = ".".join(names) or place
    words = VALIDATIONS.get(first["type"], "{param}: {message}")
    return Problem(
        status=400,
        message=words.format(param=param, message=first["msg"]),
        code="invalid_parameter",
        param=param,
    )

"""The errors that a server answers become the errors that the same call raises in a home.

{"status": 404, "code": "job_not_found", "detail": "…"} ──► JobNotFound("…")
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson

from batchgen.errors import (
    BadLines,
    BatchgenError,
    EmptyInput,
    InvalidInput,
    InvalidParameter,
    JobNotFound,
    KeyRefused,
    LineProblem,
    ModelError,
    NotAllowed,
    QuotaExceeded,
    ServerUnavailable,
    UnknownModel,
)

if TYPE_CHECKING:
    import httpx2

#: {code of a problem: its class}
CLASSES: Final[Mapping[str, type[BatchgenError]]] = {
    "empty_input": EmptyInput,
    "invalid_input": InvalidInput,
    "job_not_found": JobNotFound,
    "model_not_found": UnknownModel,
    "not_allowed": NotAllowed,
    "unusable_model": ModelError,
}
#: {status: class} of a problem whose code this version does not know.
BY_STATUS: Final[Mapping[int, type[BatchgenError]]] = {
    HTTPStatus.UNAUTHORIZED: KeyRefused,
    HTTPStatus.FORBIDDEN: KeyRefused,
    HTTPStatus.CONFLICT: NotAllowed,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidInput,
    HTTPStatus.TOO_MANY_REQUESTS: ServerUnavailable,
}
#: Statuses that may pass: the request is sent again.
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def error_of(response: httpx2.Response) -> BatchgenError:
    """Return the error of an answer whose body has been read."""
    problem = _problem(response)
    status = response.status_code
    message = problem.get("detail")
    if message is None:
        url = response.request.url.copy_with(query=None)
        return ServerUnavailable(
            f"{url} answered {status}, and not as a batchgen server does. Check BATCHGEN_URL."
        )
    code = problem.get("code")
    if code == "invalid_api_key":
        return KeyRefused()
    if code == "bad_lines":
        return _bad_lines(problem)
    if code == "not_found":
        path = response.request.url.path
        return BatchgenError(f"The server has no {path}. It may be older than this client.")
    if code == "invalid_parameter":
        return InvalidParameter(message, param=problem.get("param"))
    if code == "quota_exceeded":
        return QuotaExceeded(message, quota=problem.get("param", ""))
    kind = CLASSES.get(str(code)) or BY_STATUS.get(status)
    if kind is None:
        kind = ServerUnavailable if status >= 502 else BatchgenError
    return kind(message)


def may_pass(response: httpx2.Response) -> bool:
    """Return whether the same request may succeed later; the server may say so itself."""
    said = response.headers.get("x-should-retry")
    if said in ("true", "false"):
        return bool(said == "true")
    return response.status_code in PASSING


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that the server asks to wait, None if it does not."""
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _problem(response: httpx2.Response) -> Mapping[str, Any]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("detail"), str) else {}


def _bad_lines(problem: Mapping[str, Any]) -> BatchgenError:
    try:
        problems = [LineProblem(**found) for found in problem["errors"]]
        total = int(problem["total"])
    except (KeyError, TypeError, ValueError):
        return InvalidInput(problem["detail"])
    remedy = problem["detail"].rpartition("\n")[2]
    return BadLines(problems, total, remedy=remedy)

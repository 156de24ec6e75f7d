"""The verdict on one request: an answer, or who is at fault if there is none.

ANSWER   200 with an answer of the right model
BUSY     429, 503: the row goes back, and fewer requests are sent
AWAY     refused, reset, 401, 403, 502, 504, a redirect, another model: the row goes back
FAULT    any other status, a timeout, an answer that cannot be read: the row's, but only
         once the endpoint has answered something else
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from batchgen.core.rows import GenerationRequest, RowError
from batchgen.endpoints.connection import Failure, Reply
from batchgen.endpoints.server import server_error
from batchgen_workers.endpoint.answers import Answered, Unreadable, read_answer

ATTEMPTS = 4  # for a row that the server fails at, while it answers others
SLOW_ATTEMPTS = 2  # for a row whose answer does not come in time
LONGEST_MESSAGE = 1000  # characters of a server's message in a row's error

_BUSY = frozenset({429, 503})
_AWAY = frozenset({401, 403, 502, 504})
_TOO_LONG = ("maximum context length", "exceed context window", "exceeds the available context")


class Kind(Enum):
    """The kinds of outcomes."""

    ANSWER = auto()  #: The row has its answer.
    BUSY = auto()  #: The endpoint has enough to do.
    AWAY = auto()  #: The endpoint cannot be used now.
    FAULT = auto()  #: This row has no answer.


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of one request."""

    kind: Kind
    answer: Answered | None = None
    # The row's error if it is blamed, and after how many such attempts.
    error: RowError
    attempts: int = 1
    # Seconds that the endpoint asks to wait.
    retry_after: float | None = None
    # For a person; it quotes neither a row nor the server.
    reason: str = ""
    # True if the connection ended while the endpoint had the row.
    broken: bool = False
    # True if the answer did not come in time.
    slow: bool = False


def verdict_of(
    reply: Reply,
    request: GenerationRequest,
    *,
    accepts: Callable[[str | None], bool],
    hidden: Callable[[str], str],
) -> Verdict:
    """Return what follows from a reply.

    `accepts` tells whether a model's name in an answer is the right one; `hidden` takes the key out
    of a server's message.
    """
    if reply.failure is not None:
        return _failed(reply)
    if reply.status == 200:
        return _read(reply, request, accepts)
    error = _row_error(reply, hidden)
    reason = f"it answers {reply.status}"
    if reply.status in _BUSY:
        return Verdict(kind=Kind.BUSY, error=error, retry_after=reply.retry_after, reason=reason)
    if reply.status in _AWAY or reply.status < 400:
        return Verdict(kind=Kind.AWAY, error=error, reason=reason)
    if reply.status == 408:
        return Verdict(kind=Kind.FAULT, error=error, attempts=SLOW_ATTEMPTS, slow=True)
    attempts = 1 if reply.status < 500 else ATTEMPTS
    return Verdict(kind=Kind.FAULT, error=error, attempts=attempts, reason=reason)


def _failed(reply: Reply) -> Verdict:
    error = failure_of(f"The endpoint gave no answer: {reply.reason}.")
    match reply.failure:
        case Failure.TIMEOUT:
            return Verdict(kind=Kind.FAULT, error=error, attempts=SLOW_ATTEMPTS, slow=True)
        case Failure.TOO_LARGE:
            message = f"The endpoint's answer was not taken: {reply.reason}."
            too_large = RowError(code="result_too_large", message=message)
            return Verdict(kind=Kind.FAULT, error=too_large)
        case _:
            broken = reply.failure is Failure.BROKEN
            return Verdict(kind=Kind.AWAY, error=error, reason=reply.reason, broken=broken)


def _read(
    reply: Reply, request: GenerationRequest, accepts: Callable[[str | None], bool]
) -> Verdict:
    try:
        answer = read_answer(reply.body, request)
    except Unreadable as unreadable:
        error = failure_of(f"The endpoint's answer cannot be used: {unreadable}.")
        return Verdict(kind=Kind.FAULT, error=error, attempts=ATTEMPTS)
    if not accepts(answer.model):
        reason = f"it answers as another model, {str(answer.model)[:100]!r}"
        return Verdict(kind=Kind.AWAY, error=failure_of(reason), reason=reason)
    return Verdict(kind=Kind.ANSWER, answer=answer, error=failure_of(""))


def failure_of(message: str) -> RowError:
    """Return the error of a row for which the endpoint is to blame."""
    return RowError(code="server_error", message=message)


def _row_error(reply: Reply, hidden: Callable[[str], str]) -> RowError:
    """Return the error of a row with the server's code and message."""
    code, message = server_error(reply)
    message = hidden(message)[:LONGEST_MESSAGE] or f"The endpoint answers {reply.status}."
    if reply.status >= 500:
        return failure_of(message)
    if any(sign in message for sign in _TOO_LONG):
        return RowError(code="context_length_exceeded", message=message, param="messages")
    return RowError(code=(code or "invalid_request_error")[:100], message=message)

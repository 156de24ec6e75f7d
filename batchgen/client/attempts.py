"""Repeated attempts: which failures may pass, and how long to wait between two attempts."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from typing import Any, Final

import httpx2
import tenacity

from batchgen.client.problems import error_of, may_pass, retry_after
from batchgen.errors import BatchgenError, ServerUnavailable

RETRIES: Final = 4  # after the first attempt
FIRST_WAIT: Final = 0.5  # seconds; doubled with each attempt
LONGEST_WAIT: Final = 60.0  # seconds, also where a server asks for more


OnWait = Callable[[BatchgenError, float], None]


class Failed(Exception):
    """One attempt has failed."""

    def __init__(self, error: BatchgenError, *, may_pass: bool, wait: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.may_pass = may_pass
        self.wait = wait


def failure_of(response: httpx2.Response) -> Failed:
    """Return the failure of an answer that is an error and whose body has been read."""
    return Failed(error_of(response), may_pass=may_pass(response), wait=retry_after(response))


def unreachable(error: httpx2.HTTPError | httpx2.StreamError, url: str) -> Failed:
    """Return the failure of a connection."""
    reason = str(error) or type(error).__name__
    found = ServerUnavailable(
        f"The batchgen server {url} cannot be reached: {reason}. Check BATCHGEN_URL and that the "
        "server runs."
    )
    found.__cause__ = error
    passing = isinstance(error, httpx2.TransportError) and not _is_of_certificate(error)
    return Failed(found, may_pass=passing)


def policy(retries: int, on_wait: OnWait | None) -> dict[str, Any]:
    """Return the arguments of tenacity's Retrying and AsyncRetrying.

    `on_wait` is called with the error and the seconds before each wait.
    """

    def note(state: tenacity.RetryCallState) -> None:
        failed = state.outcome.exception() if state.outcome else None
        if on_wait and isinstance(failed, Failed) and state.next_action:
            on_wait(failed.error, state.next_action.sleep)

    return {
        "before_sleep": note,
        "retry": tenacity.retry_if_exception(_is_passing),
        "stop": tenacity.stop_after_attempt(retries + 1),
        "wait": _wait,
        "reraise": True,
    }


def _is_of_certificate(error: BaseException) -> bool:
    """Return whether the server's certificate was refused, which no waiting changes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, Failed) and error.may_pass


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds that the server asked for, or a random share of a growing time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Failed) and error.wait is not None:
        return min(error.wait, LONGEST_WAIT)
    longest = min(FIRST_WAIT * 2**state.attempt_number, LONGEST_WAIT)
    return random.uniform(longest / 2, longest)  # noqa: S311 (it spreads clients, nothing more)

"""Doing a thing to the database until it is done: an absent database costs time, never work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from batchgen.errors import DatabaseUnavailable
from batchgen_workers.logs import get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts

log = get_logger(__name__)

Result = TypeVar("Result")


def persist(action: Callable[[], Result], *, what: str, give_up: threading.Event) -> Result:
    """Call `action` until the database takes it, and return what it returns.

    Raises DatabaseUnavailable once `give_up` is set, and whatever else `action` raises (Fenced)
    at once.
    """

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("database unavailable", during=what, error=str(error))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        stop=tenacity.stop_when_event_set(give_up),
        sleep=tenacity.sleep_using_event(give_up),
        before_sleep=say,
        reraise=True,
    )
    return retrying(action)

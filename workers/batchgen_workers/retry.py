"""Doing a thing to the database until it is done: an absent database costs time, never work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from batchgen.database.database import Database
from batchgen.database.identity import open_storage
from batchgen.errors import BatchgenError, DatabaseDamaged, DatabaseUnavailable
from batchgen.service.database import open_database
from batchgen.settings import Settings
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.logs import get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts

log = get_logger(__name__)

Result = TypeVar("Result")


def retry_while_unavailable(
    action: Callable[[], Result], *, what: str, token: CancelToken
) -> Result:
    """Call `action` until the database takes it, and return what it returns.

    Raises DatabaseUnavailable once `token` is cancelled, and whatever else `action` raises (Fenced)
    at once.
    """

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("database unavailable", during=what, error=str(error))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        stop=tenacity.stop_when_event_set(token.event),
        sleep=tenacity.sleep_using_event(token.event),
        before_sleep=say,
        reraise=True,
    )
    return retrying(action)


def await_database(settings: Settings, token: CancelToken) -> Database:
    """Open the database, however long it is away, and say once that it is waited for.

    Raises DatabaseUnavailable once `token` is cancelled; DatabaseDamaged, and whatever else
    `open_checked` raises, at once.
    """
    said = False

    def say(state: tenacity.RetryCallState) -> None:
        nonlocal said
        error = state.outcome.exception() if state.outcome else None
        if not said:
            log.warning("waiting for the database", error=str(error))
        said = True

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_come_back),
        wait=tenacity.wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        stop=tenacity.stop_when_event_set(token.event),
        sleep=tenacity.sleep_using_event(token.event),
        before_sleep=say,
        reraise=True,
    )
    database = retrying(open_checked, settings)
    if said:
        log.info("database back", database=database.shown)
    return database


def open_checked(settings: Settings) -> Database:
    """Open the database and see that the home is its store.

    Raises what `open_database` does (DatabaseUnavailable, SchemaMismatch, InvalidParameter), and
    StoreMismatch.
    """
    database = open_database(settings)
    try:
        open_storage(database, settings.home).check()
    except BatchgenError:
        database.close()
        raise
    return database


def may_come_back(error: BaseException) -> bool:
    """Tell whether an error says that the database is away, and nothing worse."""
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseDamaged)

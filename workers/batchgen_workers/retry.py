"""Retries database calls while the database is unavailable, so that no work is lost."""

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
    """Call `action` until it does not raise DatabaseUnavailable, and return its result.

    `what` names the action in the log. Raises DatabaseUnavailable once `token` is cancelled.
    Any other error of `action`, such as Fenced, is raised at once.
    """

    def log_error(error: BaseException | None) -> None:
        log.warning("database unavailable", during=what, error=str(error))

    is_retried = tenacity.retry_if_exception_type(DatabaseUnavailable)
    return _retrying(is_retried, token, log_error)(action)


def await_database(settings: Settings, token: CancelToken) -> Database:
    """Open the database; wait while it is unavailable, and log that once.

    Raises DatabaseUnavailable once `token` is cancelled. DatabaseDamaged and every other error of
    `open_checked` are raised at once.
    """
    logged = False

    def log_once(error: BaseException | None) -> None:
        nonlocal logged
        if not logged:
            log.warning("waiting for the database", error=str(error))
        logged = True

    is_retried = tenacity.retry_if_exception(may_come_back)
    database = _retrying(is_retried, token, log_once)(open_checked, settings)
    if logged:
        log.info("database back", database=database.shown)
    return database


def _retrying(
    is_retried: tenacity.retry_base,
    token: CancelToken,
    on_retry: Callable[[BaseException | None], None],
) -> tenacity.Retrying:
    """Return a caller that retries until `token` is cancelled; `on_retry` gets each error."""

    def before_sleep(state: tenacity.RetryCallState) -> None:
        on_retry(state.outcome.exception() if state.outcome else None)

    return tenacity.Retrying(
        retry=is_retried,
        wait=tenacity.wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
        stop=tenacity.stop_when_event_set(token.event),
        sleep=tenacity.sleep_using_event(token.event),
        before_sleep=before_sleep,
        reraise=True,
    )


def open_checked(settings: Settings) -> Database:
    """Open the database and check that it belongs to the store in the home.

    Raises the errors of `open_database` (DatabaseUnavailable, SchemaMismatch, InvalidParameter),
    and StoreMismatch.
    """
    database = open_database(settings)
    try:
        open_storage(database, settings.home).check()
    except BatchgenError:
        database.close()
        raise
    return database


def may_come_back(error: BaseException) -> bool:
    """Return whether the database is only unavailable, so that a retry may succeed."""
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseDamaged)

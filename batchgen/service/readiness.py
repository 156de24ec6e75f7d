"""Checks whether a service can work: its database, its storage and its broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from batchgen.errors import BatchgenError
from batchgen.service.broker import ping

if TYPE_CHECKING:
    from batchgen.service.service import Service


def failing_checks(service: Service) -> dict[str, BatchgenError | None]:
    """Return {what was checked: the error, None if it is well}.

    The broker is checked if one is configured. The database must have the schema of this version.
    """
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: service.store.database.check_schema(),
        "storage": lambda: service.storage.check(),
    }
    if service.settings.broker_url:
        checks["broker"] = lambda: ping(service.settings.broker_url)
    return {name: _error_of(check) for name, check in checks.items()}


def _error_of(check: Callable[[], object]) -> BatchgenError | None:
    try:
        check()
    except BatchgenError as error:
        return error
    return None

"""Openings: decide whether the window of a job is open now."""

from __future__ import annotations

import socket
from typing import Any

from sqlalchemy import Connection, update

from batchgen.calendar.windows import Window
from batchgen.database.tables import jobs, storable
from batchgen.errors import InvalidParameter


def is_open(connection: Connection, job: Any, now: float) -> bool:
    """Return whether the window of a job (`id`, `window_spec`, `error`) is open at `now`.

    Machines know different time zones. If this one cannot read a window, the window is closed here,
    and the job's error says so until it can be read again. Other jobs are not affected.
    """
    trouble = f"Its window cannot be read on {socket.gethostname()}: "
    try:
        opened = job.window_spec is None or Window.parse(job.window_spec).is_open(now)
    except InvalidParameter as error:
        _set_error(connection, job, storable(f"{trouble}{error.message}"))
        return False
    if job.error is not None and job.error.startswith(trouble):
        _set_error(connection, job, None)
    return opened


def _set_error(connection: Connection, job: Any, error: str | None) -> None:
    if job.error != error:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(error=error))

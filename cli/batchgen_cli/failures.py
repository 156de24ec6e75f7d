"""Turns every exception that ends a command into one message and one exit code."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.errors import BadLines, BatchgenError, NoPermission, OutputConflict

if TYPE_CHECKING:
    from batchgen_cli.app import App

FAILED = 1
TIMED_OUT = 124
INTERRUPTED = 130

EXIT_CODES = """\
Exit codes:
  0    ok
  1    the job ended with rows that have no answer, or failed; a check found damage
  2    usage, or input that cannot be used
  3    a service cannot be reached; doctor found a fault
  4    not found, or not allowed
  124  `wait --timeout` expired
  130  Ctrl-C
"""


def exit_code_of(error: BaseException, app: App) -> int:
    """Print the error that ended a command, and return its exit code."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        app.output.warn("Interrupted.")
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return FAILED  # a reader such as `head` has closed the pipe, which is no error
    if debugging(app):
        app.output.warn("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, PermissionError):
        error = NoPermission.of(error)
    if isinstance(error, BatchgenError):
        app.output.error(error, hint=_hint(error))
        return error.exit_code
    app.output.error(_unexpected(error, app))
    return FAILED


def _hint(error: BatchgenError) -> str | None:
    """Return the option that helps; errors say nothing of options, as Python raises them too."""
    if isinstance(error, OutputConflict):
        return "-o names another place for the results."
    if isinstance(error, BadLines) and error.may_be_error_rows:
        return "--on-invalid row-error keeps bad lines as error rows."
    return None


def debugging(app: App) -> bool:
    """Return whether tracebacks are shown: --verbose, or BATCHGEN_DEBUG in the environment."""
    return app.verbose or os.environ.get("BATCHGEN_DEBUG", "") not in ("", "0")


def _unexpected(error: BaseException, app: App) -> BatchgenError:
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        summary = f"{error.strerror}{where}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return BatchgenError(f"{summary}. Make room there and give the command again.")
    log = _write_log(error, app)
    details = f" Details: {log}" if log else " Run it again with --verbose for the details."
    return BatchgenError(f"{summary}.{details}")


def _write_log(error: BaseException, app: App) -> Path | None:
    """Append the traceback to a log file and return its path, None if none can be written."""
    from batchgen_workers.exceptions import trace  # it leaves out messages that may quote a row

    text = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {' '.join(sys.argv[:2])}\n{trace(error)}\n"
    for folder in _log_folders(app):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "batchgen.log").open("a") as log:
                log.write(text)
        except OSError:
            continue
        return folder / "batchgen.log"
    return None


def _log_folders(app: App) -> list[Path]:
    from platformdirs import user_log_path

    folders = [user_log_path("batchgen")]
    if "settings" in vars(app) and os.path.isdir(app.settings.home):  # noqa: PTH112 (never raises)
        folders.insert(0, app.settings.home / "logs")
    return folders

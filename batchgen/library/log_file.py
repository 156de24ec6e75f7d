"""Log to a file in the run's folder, without a change to the logging of the calling program."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from structlog.processors import JSONRenderer
from structlog.stdlib import ProcessorFormatter

from batchgen_workers.exceptions import trace

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

NAME: Final = "run.log"
LOGGERS: Final = ("batchgen", "batchgen_migrations", "batchgen_workers")


@contextmanager
def log_file(home: Path) -> Iterator[None]:
    """Write the log lines of batchgen to a file in `home`, as JSON, while the block runs.

    The caller's loggers, handlers and hooks are not changed.
    """
    handler = logging.FileHandler(home / NAME, encoding="utf-8")
    remove_meta = ProcessorFormatter.remove_processors_meta
    handler.setFormatter(ProcessorFormatter(processors=[remove_meta, _traced, JSONRenderer()]))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()


def _traced(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace an exception by its traceback without the message, which may quote a prompt."""
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else sys.exc_info()[1] if found is True else found
    if isinstance(error, BaseException):
        event["exception"] = trace(error)
    return event

"""Logs: short events with fields, on standard error. No field ever holds a prompt or an answer."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from batchgen_workers.exceptions import trace

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

# What each line says of its process: {"worker": "host/4711/…"}.
_process_ids: dict[str, str] = {}


def _add_process_ids(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return {**_process_ids, **event}


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    _add_process_ids,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of one module; its lines go through the handlers of `logging`."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


@contextmanager
def named_process(**ids: str) -> Iterator[None]:
    """Add ids to each log line of this process for the block, whatever thread writes it."""
    _process_ids.update(ids)
    try:
        yield
    finally:
        for name in ids:
            del _process_ids[name]


def configure_logging(*, verbose: bool = False, json: bool | None = None) -> None:
    """Send every log line of this process to standard error.

    Args:
        verbose: log at debug level too.
        json: write one JSON object a line; None does so unless standard error is a terminal.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                format_exception,
                renderer,
            ],
        )
    )
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True
    )
    for noisy in ("alembic", "amqp", "celery", "kombu", "redis"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.WARNING)
    # Python would print the message of an uncaught exception, which may quote a prompt.
    sys.excepthook = lambda kind, error, frames: _log_uncaught(error)
    threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_value)


def format_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace the exception of a log event by its trace, which quotes no prompt.

    It is a structlog processor.
    """
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else sys.exc_info()[1] if found is True else found
    if isinstance(error, BaseException):
        event["exception"] = trace(error)
    return event


def _log_uncaught(error: BaseException | None) -> None:
    logging.getLogger(__name__).critical("uncaught exception", exc_info=error)

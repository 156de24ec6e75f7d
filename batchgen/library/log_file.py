"""Log to a file in the run's folder, without a change to the logging of the calling program."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from structlog.processors import JSONRenderer
from structlog.stdlib import ProcessorFormatter

from batchgen_workers.logs import format_exception

NAME: Final = "run.log"
LOGGERS: Final = ("batchgen", "batchgen_migrations", "batchgen_workers")


@contextmanager
def log_file(home: Path) -> Iterator[None]:
    """Write the log lines of batchgen to a file in `home`, as JSON, while the block runs.

    The caller's loggers, handlers and hooks are not changed.
    """
    handler = logging.FileHandler(home / NAME, encoding="utf-8")
    remove_meta = ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        ProcessorFormatter(processors=[remove_meta, format_exception, JSONRenderer()])
    )
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

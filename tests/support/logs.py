"""Logging as a process of ours has it, for a while."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from batchgen_workers.logs import configure_logging

LIBRARIES = ("alembic", "amqp", "celery", "kombu", "redis")


@contextmanager
def logging_to_stderr(*, verbose: bool = False) -> Iterator[None]:
    """Log JSON lines to standard error during the block; afterwards all is as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    hooks = sys.excepthook, threading.excepthook
    configure_logging(json=True, verbose=verbose)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
        for name, former in levels.items():
            logging.getLogger(name).setLevel(former)

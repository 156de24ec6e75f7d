"""Sends the log of `batchgen run` to a file, so that the terminal stays readable."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "run.log"


@contextmanager
def log_file(home: Path, *, verbose: bool) -> Iterator[Path]:
    """Send every log line of the block to a file in `home`, as JSON; yield its path."""
    from batchgen_workers.logs import configure_logging

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    path = home / NAME
    with path.open("a") as file:
        configure_logging(verbose=verbose, json=True)
        for handler in root.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(file)
        try:
            yield path
        finally:
            root.handlers[:] = before
            root.setLevel(level)

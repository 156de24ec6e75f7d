"""The FILE of a command: a path, or - for standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from batchgen.errors import MissingInput
from batchgen_cli.output import is_terminal


@contextmanager
def open_input(file: str) -> Iterator[BinaryIO]:
    """Open FILE for reading.

    Raises:
        MissingInput: it does not exist, is a folder, may not be read, or is a closed stream.
    """
    if file == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise MissingInput(
                "Standard input is closed: there is nothing to read. Name a file instead of -, or "
                "redirect one to standard input."
            )
        if is_terminal(sys.stdin):
            click.echo("Reading prompts from the terminal; Ctrl-D ends them.", err=True)
        yield sys.stdin.buffer
        return
    with _open_file(Path(file)) as stream:
        yield stream


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"The input file {path} cannot be read: {reason}. Check the path."
        raise MissingInput(message) from None

"""Opens the FILE of a command: a path, or - for standard input.

file, link                 read to its end
named pipe                 read to its end; waits for a writer first
folder, socket, device     refused, except the null device and a terminal
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import click

from batchgen.errors import MissingInput
from batchgen_cli.output import is_terminal

PATIENCE: Final = 1_000  # milliseconds of waiting for the writer of a pipe until a message


@contextmanager
def open_input(file: str) -> Iterator[BinaryIO]:
    """Open FILE for reading.

    Raises:
        MissingInput: it does not exist, is no file or pipe, cannot be read, or is a closed stream.
    """
    if file == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise MissingInput(
                "Standard input is closed: there is nothing to read. Name a file instead of -, or "
                "redirect one to standard input."
            )
        if is_terminal(sys.stdin):
            click.echo("Reading prompts from the terminal; Ctrl-D ends them.", err=True)
        _check_standard_input()
        yield sys.stdin.buffer
        return
    with _open_file(Path(file)) as stream:
        yield stream


def _open_file(path: Path) -> BinaryIO:
    try:
        if path.is_socket():
            raise OSError(errno.ENXIO, "it is a socket")
        # Opening a pipe must not wait for its writer: `_await_writer` does, with a message.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            _check_kind(descriptor)
            _await_writer(descriptor, path)
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"The input file {path} cannot be read: {reason}. Check the path."
        raise MissingInput(message) from None


def _await_writer(descriptor: int, path: Path) -> None:
    """Wait for the first byte of a named pipe: before that, a read would return end of file."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    pipe = select.poll()
    pipe.register(descriptor, select.POLLIN)
    if not pipe.poll(PATIENCE):
        click.echo(f"Waiting for prompts from the pipe {path}; Ctrl-C ends it.", err=True)
        pipe.poll()


def _check_standard_input() -> None:
    try:
        _check_kind(sys.stdin.fileno())
    except io.UnsupportedOperation:  # a stream of a test
        return
    except OSError as error:
        raise MissingInput(f"Standard input cannot be read: {error.strerror}.") from None


def _check_kind(descriptor: int) -> None:
    """Raise OSError unless it is a file, a pipe, a terminal or the null device.

    Other devices may never end.
    """
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev
    is_device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
    if is_device and not is_null and not os.isatty(descriptor):
        raise OSError(errno.ENODEV, "it is a device")

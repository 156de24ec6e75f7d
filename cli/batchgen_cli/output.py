"""All printing of the command: data to stdout, messages to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

import click

from batchgen.errors import BatchgenError

PIPE_WIDTH = 10_000  # columns of a table that goes to a pipe: nothing is cut or wrapped


class Format(StrEnum):
    """The format in which a command writes its data."""

    HUMAN = "human"  #: Tables and sentences.
    JSON = "json"  #: One JSON document, or one JSON event a line.
    QUIET = "quiet"  #: Ids, names and paths only, one a line.


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    value: Callable[[Any], str]
    right: bool = False


@dataclass(slots=True, kw_only=True)
class Output:
    """Writes the data and messages of a command, in the format that the user chose."""

    format: Format = Format.HUMAN

    def data(self, text: str) -> None:
        """Write one line of data, in every format."""
        click.echo(text)

    def raw(self, chunk: bytes) -> None:
        """Write bytes of data unchanged."""
        sys.stdout.buffer.write(chunk)

    def document(self, value: Any) -> None:
        """Write one JSON document, indented."""
        click.echo(_json(value, indent=True))

    def event(self, value: Mapping[str, Any]) -> None:
        """Write one JSON object on a line of its own, and flush it."""
        click.echo(_json(value))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Write a message to stderr; formats other than HUMAN leave it out."""
        if self.format is Format.HUMAN:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Write a message to stderr, in every format."""
        click.echo(text, err=True)

    def record(self, value: Any, *, quiet: str, human: Callable[[], str]) -> None:
        """Write one item: its JSON, its id, or its description."""
        if self.format is Format.JSON:
            self.document(value)
        else:
            self.data(quiet if self.format is Format.QUIET else human())

    def table(
        self,
        rows: Sequence[Any],
        columns: Sequence[Column],
        *,
        quiet: Callable[[Any], str],
        json: Callable[[Any], Any],
        empty: str,
    ) -> None:
        """Write many items: a JSON list, their ids, or a table; without rows write `empty`."""
        if self.format is Format.JSON:
            self.document([json(row) for row in rows])
        elif self.format is Format.QUIET:
            for row in rows:
                self.data(quiet(row))
        elif not rows:
            self.note(empty)
        else:
            _print_table(rows, columns)

    def error(self, error: BatchgenError, *, hint: str | None = None) -> None:
        """Write an error to stderr, and how an option of the command helps."""
        if self.format is Format.JSON:
            kind = type(error).__name__
            body = {"type": kind, "message": error.message, "exit_code": error.exit_code}
            click.echo(_json({"error": body | ({"hint": hint} if hint else {})}), err=True)
        else:
            click.echo(f"Error: {error.message}", err=True)
            if hint:
                click.echo(f"Hint: {hint}", err=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal; None and a closed stream are none."""
    return stream is not None and not stream.closed and stream.isatty()


def _json(value: Any, *, indent: bool = False) -> str:
    import orjson

    from batchgen.dataset.json_lines import escape_line_ends

    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return escape_line_ends(orjson.dumps(value, option=option, default=str)).decode()


def _print_table(rows: Sequence[Any], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(column.value(row)) for column in columns))
    Console(width=None if is_terminal(sys.stdout) else PIPE_WIDTH).print(table)

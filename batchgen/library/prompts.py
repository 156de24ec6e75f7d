"""Convert prompts from Python objects to the bytes of a JSON Lines file.

path                                          the file itself
binary file                                   the rest of it
frame, table, relation (Arrow's C stream)     one line for each row, some rows at a time
pandas frame                                  the same; cells may hold any object
other iterable                                one line for each dict

Memory holds only a few prompts, even if there are many.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast

from batchgen.errors import InvalidInput, MissingInput
from batchgen.library.json_text import json_line
from batchgen.library.line_stream import LineStream

#: A frame or table is recognised by its methods, so no package is imported for it.
Prompts: TypeAlias = str | os.PathLike[str] | BinaryIO | Iterable[Mapping[str, Any]] | Any

BATCH_ROWS: Final = 1024  # rows of a frame or table that become Python objects at a time


@contextmanager
def open_prompts(prompts: Prompts) -> Iterator[BinaryIO]:
    """Open prompts for reading, as JSON Lines.

    Raises:
        MissingInput: the file cannot be read.
        InvalidInput: the object is not a source of prompts. For a single bad row, it is raised when
            the row is read.
    """
    if isinstance(prompts, str | os.PathLike):
        with _open_file(Path(prompts).expanduser()) as file:
            yield file
    elif hasattr(prompts, "read"):
        yield _binary(prompts)
    else:
        lines = (_line(number, row) for number, row in enumerate(_rows_of(prompts)))
        yield cast("BinaryIO", io.BufferedReader(LineStream(lines)))


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"The input file {path} cannot be read: {reason}. Check the path."
        raise MissingInput(message) from None


def _binary(file: Any) -> BinaryIO:
    if isinstance(file, io.TextIOBase):
        raise InvalidInput("The file is open for text. Open it for bytes, with the mode 'rb'.")
    return cast("BinaryIO", file)


def _rows_of(prompts: Any) -> Iterable[Any]:
    if hasattr(prompts, "iloc") and hasattr(prompts, "columns"):
        return _rows_of_pandas(prompts)
    if hasattr(prompts, "__arrow_c_stream__"):
        return _rows_of_arrow(prompts)
    if isinstance(prompts, Iterable) and not isinstance(prompts, Mapping | bytes):
        return prompts
    raise InvalidInput(
        f"A {type(prompts).__name__} holds no prompts. Give a path, a list or another iterable of "
        "dicts, or a frame or table with a column 'prompt' or 'messages'."
    )


def _rows_of_pandas(frame: Any) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(frame), BATCH_ROWS):
        cells = frame.iloc[start : start + BATCH_ROWS].astype(object)
        yield from cells.where(cells.notna(), None).to_dict("records")


def _rows_of_arrow(table: Any) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    try:
        reader = pa.RecordBatchReader.from_stream(table)
    except pa.ArrowInvalid:  # a single column without a name
        raise InvalidInput(
            f"A {type(table).__name__} is one column. Give a table whose columns have names, one "
            "of them 'prompt' or 'messages'."
        ) from None
    for batch in reader:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield from batch.slice(start, BATCH_ROWS).to_pylist()


def _line(number: int, row: Any) -> bytes:
    if not isinstance(row, Mapping):
        raise InvalidInput(
            f"Row {number} is a {type(row).__name__}. Give a dict, such as {{'prompt': …}} or "
            "{'messages': [{'role': 'user', 'content': …}]}."
        )
    try:
        return json_line(row if isinstance(row, dict) else dict(row))
    except TypeError as error:
        raise InvalidInput(
            f"Row {number} cannot be written as JSON: {error}. Give text, numbers, lists and dicts."
        ) from None

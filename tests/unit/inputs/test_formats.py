from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest

from batchgen.inputs.formats import HEAD_BYTES, MAGIC, recognise

ROWS = [{"prompt": f"Count to {at}", "topic": "a, b"} for at in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = pa.Table.from_pylist(ROWS)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    """Return what a writer of a binary file writes."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def table(delimiter: str) -> bytes:
    """Return the rows as a table with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def zipped(name: str) -> bytes:
    """Return an archive that holds one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, LINES)
    return file.getvalue()


def stream() -> bytes:
    """Return the rows as an Arrow stream."""
    file = io.BytesIO()
    with pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return file.getvalue()


LONG = [{**row, "extra": "x" * HEAD_BYTES} for row in ROWS]
# {what the file is: (its bytes, words of the error)}
FILES: dict[str, tuple[bytes, str]] = {
    "gzip": (gzip.compress(LINES), "gunzip"),
    "bzip2": (bz2.compress(LINES), "bzip2 -dc"),
    "xz": (lzma.compress(LINES), "xz -dc"),
    "zip": (zipped("prompts.jsonl"), "ZIP"),
    "xlsx": (zipped("xl/workbook.xml"), "Excel"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "7z"),
    "parquet": (written(lambda file: pa.parquet.write_table(TABLE, file)), "Parquet"),
    "feather": (written(lambda file: pa.feather.write_feather(TABLE, file)), "Arrow"),
    "orc": (written(lambda file: pa.orc.write_table(TABLE, file)), "ORC"),
    "arrow stream": (stream(), "Arrow stream"),
    "csv": (table(","), "CSV"),
    "tsv": (table("\t"), "TSV"),
    "csv with semicolons": (b"\xef\xbb\xbf" + table(";"), "semicolons"),
    "array": (json.dumps(ROWS).encode(), r"jq -c '\.\[\]'"),
    "array over lines": (json.dumps(ROWS, indent=1).encode(), r"jq -c '\.\[\]'"),
    "array, a row a line": (b"[" + LINES.replace(b"\n", b",\n") + b"]\n", r"jq -c '\.\[\]'"),
    "array, longer than looked at": (json.dumps(LONG).encode(), r"jq -c '\.\[\]'"),
    "objects over lines": (
        "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
        r"jq -c \. FILE",
    ),
    "one object over lines": (json.dumps({"rows": ROWS}, indent=2).encode(), r"jq -c \. FILE"),
    "an object over lines, longer than looked at": (
        json.dumps(LONG, indent=2)[2:].encode().lstrip(),
        r"jq -c \. FILE",
    ),
    "text": (b"Why is the sky blue?\nWho was Ada?\n", "jq -Rc"),
    "UTF-16 with mark": (LINES.decode().encode("utf-16"), "UTF-16 "),
    "UTF-16LE": (LINES.decode().encode("utf-16-le"), "UTF-16LE"),
    "UTF-16BE": (LINES.decode().encode("utf-16-be"), "UTF-16BE"),
    "UTF-32": (LINES.decode().encode("utf-32"), "UTF-32 "),
    "UTF-32LE": (LINES.decode().encode("utf-32-le"), "UTF-32LE"),
    "UTF-32BE": (LINES.decode().encode("utf-32-be"), "UTF-32BE"),
    "zeros": (bytes(4096), "binary"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_format_is_named_with_a_remedy(name: str) -> None:
    content, said = FILES[name]
    found = recognise(content[: 2 * HEAD_BYTES])
    assert found is not None
    assert re.search(said, f"{found.name}: {found.remedy}")


def test_a_database_is_named(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("CREATE TABLE rows (prompt TEXT)")
    connection.close()
    found = recognise((tmp_path / "rows.db").read_bytes())
    assert found is not None
    assert "SQLite" in found.name


@pytest.mark.parametrize("magic", MAGIC)
def test_every_magic_number_is_found_at_the_start_only(magic: bytes) -> None:
    assert recognise(magic + b"rest") is not None
    assert recognise(LINES + magic) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        LINES,
        b"\xef\xbb\xbf" + LINES,
        b"\n\n" + LINES,
        # bad lines are for those who look at lines
        b"{oops\n" + LINES,
        b"{\n" + LINES,
        b"not an object\n" + LINES,
        b"# prompts, made on Monday\n" + LINES,
        b"a, b, c\n" + LINES,
        b'["a", "list"]\n' + LINES,
        b'"text"\n7\n',
        b"one line that is text",
        b'{"prompt": "' + b"x" * HEAD_BYTES,
        b'{"prompt": "a\\nb"}\n',
        b"{'prompt': 'x'}\n{'prompt': 'y'}\n",
    ],
)
def test_lines_are_lines_however_bad_they_are(head: bytes) -> None:
    assert recognise(head) is None

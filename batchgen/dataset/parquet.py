"""Parquet a row group at a time: what is long is never one array.

Arrow cannot read a nested column of more than 2 GiB at once, and nobody should hold as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchgen.dataset.arrow_schema import PARQUET_OPTIONS


def row_groups(file: pq.ParquetFile) -> Iterator[pa.Table]:
    """Yield each row group of an open file as a table."""
    for number in range(file.num_row_groups):
        yield file.read_row_group(number)


@contextmanager
def writing_parquet(file: BinaryIO, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer to an open file, which is whole when the block ends well."""
    writer = pq.ParquetWriter(file, schema, **PARQUET_OPTIONS)
    try:
        yield writer
    except BaseException:
        with suppress(OSError):  # it writes a footer, and the disk may be full
            writer.close()
        raise
    writer.close()

"""Read and write Parquet one row group at a time.

Arrow cannot read a nested column of more than 2 GiB at once, and it would take too much memory.
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
    """Yield a writer to an open file, which is complete when the block ends without an error."""
    writer = pq.ParquetWriter(file, schema, **PARQUET_OPTIONS)
    try:
        yield writer
    except BaseException:
        with suppress(OSError):  # close writes a footer, and the disk may be full
            writer.close()
        raise
    writer.close()

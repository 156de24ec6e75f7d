from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.result_table import from_table, to_table
from batchgen.dataset.streams.arrow_streams import arrow_stream, parquet_stream
from batchgen.dataset.streams.record_batches import sliced
from tests.support.strange_rows import rows_of_every_kind

ROWS = rows_of_every_kind()


def batches() -> list[pa.RecordBatch]:
    table = to_table(ROWS)
    return [*table.slice(0, 5).to_batches(), *table.slice(5).to_batches()]


def test_an_arrow_stream_gives_the_rows_back() -> None:
    pieces = list(arrow_stream(iter(batches())))
    assert len(pieces) == 3  # a piece leaves before the next batch is read
    with pa.ipc.open_stream(b"".join(pieces)) as reader:
        assert from_table(reader.read_all()) == ROWS


def test_a_parquet_stream_gives_the_rows_back() -> None:
    pieces = list(parquet_stream(iter(batches())))
    assert len(pieces) == 3
    table = pq.read_table(io.BytesIO(b"".join(pieces)))
    assert table.schema.equals(SCHEMA)
    assert from_table(table) == ROWS


def test_no_rows_are_an_empty_table() -> None:
    nothing = sliced(iter(batches()), len(ROWS))
    assert pq.read_table(io.BytesIO(b"".join(parquet_stream(nothing)))).num_rows == 0
    assert pa.ipc.open_stream(b"".join(arrow_stream(iter([])))).read_all().num_rows == 0

"""Rows as the bytes of an Arrow IPC stream or of one Parquet file, made while they are sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchgen.dataset.arrow_schema import PARQUET_OPTIONS, SCHEMA
from batchgen.dataset.streams.record_batches import Batches


def arrow_stream(batches: Batches) -> Iterator[bytes]:
    """Yield the batches as an Arrow IPC stream of `SCHEMA`, compressed with zstd."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    return _written(batches, lambda sink: pa.ipc.new_stream(sink, SCHEMA, options=options))


def parquet_stream(batches: Batches) -> Iterator[bytes]:
    """Yield the batches as one Parquet file of `SCHEMA`, a row group for each batch."""
    return _written(batches, lambda sink: pq.ParquetWriter(sink, SCHEMA, **PARQUET_OPTIONS))


def _written(batches: Batches, open_writer: Callable[[Any], Any]) -> Iterator[bytes]:
    sink = _Sink()
    with open_writer(sink) as writer:
        for batch in batches:
            writer.write_batch(batch)
            if data := sink.take():
                yield data
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        """Return True: writers of Arrow ask for it."""
        return True

    def tell(self) -> int:
        """Return the number of bytes written so far, taken ones too."""
        return self._position

    def write(self, data: Any) -> int:
        """Keep a copy of the bytes."""
        self._pieces.append(bytes(data))
        self._position += len(self._pieces[-1])
        return len(self._pieces[-1])

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

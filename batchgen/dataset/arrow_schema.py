"""The columns of the dataset, and the options for writing them to Parquet."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION: Final = 1

# A Parquet reader names the items of a list "element". With this name a round trip is exact.
_TOKENS = pa.list_(pa.field("element", pa.int32()))

CHOICE: Final = pa.struct(
    [
        ("index", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("score", pa.float64()),
        ("tokens", _TOKENS),
        ("logprobs", pa.string()),
    ]
)
USAGE: Final = pa.struct(
    [
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
    ]
)
ERROR: Final = pa.struct([("code", pa.string()), ("message", pa.string()), ("param", pa.string())])

#: Schema 1: the same for parts, `data/` and `errors/`.
SCHEMA: Final = pa.schema(
    [
        ("row", pa.int64()),  # 0-based record of the input: the identity of a result
        ("custom_id", pa.string()),
        ("response", pa.string()),  # text of the first choice; null on an error row
        ("choices", pa.list_(pa.field("element", CHOICE))),  # best first; empty on an error row
        ("finish_reason", pa.string()),  # of the first choice
        ("model", pa.string()),
        ("usage", USAGE),
        ("error", ERROR),  # null on success
        ("request_id", pa.string()),
        ("attempt", pa.int32()),
        ("seed", pa.int64()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("latency_ms", pa.int64()),
        ("extra", pa.string()),  # JSON text of the input line's columns
    ]
)

#: Keywords of `pyarrow.parquet.ParquetWriter` for every file that batchgen writes.
PARQUET_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 3,
    # Answers rarely repeat, so the writer would give up a dictionary of them in any case.
    "use_dictionary": ["model", "finish_reason"],
    "write_page_index": True,
    "write_page_checksum": True,
    # Pages are cut by content, so that a second upload sends only the pages that changed.
    "use_content_defined_chunking": True,
    "sorting_columns": [pq.SortingColumn(0)],  # by `row`
}
